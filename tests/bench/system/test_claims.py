import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path
from typing import Any

import pytest

from bench.system import claims, holder
from bench.system.claims import claimed, read_holder, tidy_claims, try_claim
from bench.system.exclusive import rename_new
from bench.system.holder import mark_in, this_process


def test_one_holds_and_the_other_is_told_who(tmp_path: Path) -> None:
    claim = try_claim(tmp_path / "a" / "x.claim")
    assert claim is not None
    assert try_claim(claim.path) is None
    held = read_holder(claim.path)
    assert held is not None
    assert str(os.getpid()) in str(held)
    claim.release()
    assert not claim.path.exists()
    with claimed(claim.path) as again:
        assert again is not None
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_a_claim_of_a_dead_process_is_void_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.claim"
    code = "from bench.system.claims import *\nimport sys\ntry_claim(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert read_holder(path) is not None
    assert try_claim(path) is not None


def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "x.claim"
    first = try_claim(path)
    assert first is not None
    other = json.loads(path.read_text()) | {"started": "1", "token": "t"}
    path.write_text(json.dumps(other))
    assert not first.is_mine()
    taken = try_claim(path)
    assert taken is not None
    first.release()  # it is somebody else's now
    assert taken.is_mine()


def _elsewhere(path: Path, age: float) -> None:
    claim = try_claim(path)
    assert claim is not None
    claims._KEEPER.remove(claim)  # nobody here is to touch it
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "other", "host": "far"}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_claim_of_another_machine_lives_while_it_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "x.claim"
    _elsewhere(path, claims.PATIENCE - 20)
    assert try_claim(path) is None
    _elsewhere(tmp_path / "y.claim", claims.PATIENCE + 20)
    assert try_claim(tmp_path / "y.claim") is not None


def test_a_claim_from_before_this_machine_was_started_anew_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, "_machine", lambda: "this")
    path = tmp_path / "x.claim"
    claim = try_claim(path)
    assert claim is not None
    assert try_claim(path) is None
    monkeypatch.setattr(holder, "_boot", lambda: "later")
    # A copy of this machine, with its name and identity, has another start too, and is alive.
    assert try_claim(path) is None
    then = time.time() - claims.SILENCE - 1
    os.utime(path, (then, then))
    assert try_claim(path) is not None


@pytest.mark.parametrize("hidden", [False, True])
def test_a_number_that_another_user_uses_again_does_not_hold_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("of another user")

    path = tmp_path / "x.claim"
    assert try_claim(path) is not None
    monkeypatch.setattr(os, "kill", refuse)
    assert try_claim(path) is None  # it started when the holder did
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "1"}))
    if hidden:  # nothing is told of processes of others: then it goes by the signs of life
        monkeypatch.setattr(holder, "_started", lambda _: "")
        assert try_claim(path) is None
        os.utime(path, (0, 0))
    assert try_claim(path) is not None


def _refuse(*_: object) -> None:
    raise PermissionError("not on this file system")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("how", ["taken over", "touched"])
@pytest.mark.parametrize(("name", "looks"), [("x.claim", 2), ("x.claim.turn", 1)])
def test_what_comes_alive_between_the_last_look_and_the_removal_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, looks: int, how: str, links: bool
) -> None:
    claim, path = tmp_path / "x.claim", tmp_path / name
    _elsewhere(claim, claims.PATIENCE + 20)
    if path != claim:
        os.link(claim, path)
    other = json.dumps(json.loads(claim.read_text()) | {"token": "another"})
    is_void, seen = claims._is_void, []

    def come_alive(place: Path, *about: Any) -> bool:
        found = is_void(place, *about)
        seen.append(place)
        if place == path and seen.count(path) == looks:
            assert found
            if how == "taken over":
                path.unlink()
                path.write_text(other)
            os.utime(path)
        return found

    monkeypatch.setattr(claims, "_is_void", come_alive)
    if not links:
        monkeypatch.setattr(os, "link", _refuse)
    assert try_claim(claim) is None
    held = read_holder(path)
    assert held is not None
    assert (held.token == "another") is (how == "taken over")
    assert {p.name for p in tmp_path.iterdir()} == {"x.claim", name}


@pytest.mark.parametrize("renames", [True, False])
def test_without_hard_links_it_works_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: bool
) -> None:
    monkeypatch.setattr(os, "link", _refuse)
    if not renames:
        monkeypatch.setattr(claims, "rename_new", _refuse)
    path = tmp_path / "x.claim"
    claim = try_claim(path)
    assert claim is not None
    assert try_claim(path) is None
    claim.release()
    assert not list(tmp_path.iterdir())


def test_a_claim_cut_short_while_it_was_written_expires(tmp_path: Path) -> None:
    path = tmp_path / "x.claim"
    path.write_text('{"host": "a", "pi')
    assert try_claim(path) is None
    os.utime(path, (0, 0))
    assert try_claim(path) is not None


def test_the_holder_touches_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(claims, "_KEEPER", claims._Keeper())
    claim = try_claim(tmp_path / "x.claim")
    assert claim is not None
    os.utime(claim.path, (0, 0))
    for _ in range(500):
        if claim.path.stat().st_mtime > 0:
            break
        time.sleep(0.01)
    assert claim.path.stat().st_mtime > 0


def _grab(path: Path, start: float, won: "multiprocessing.Queue[int]", done: BarrierType) -> None:
    time.sleep(max(0.0, start - time.time()))
    for _ in range(50):
        if try_claim(path) is not None:
            won.put(os.getpid())
            break
    done.wait()  # whoever ends gives its claim up


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_exactly_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool, links: bool
) -> None:
    path = tmp_path / "x.claim"
    if not links:
        monkeypatch.setattr(os, "link", _refuse)
    if stale:
        _elsewhere(path, claims.PATIENCE + 20)
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    start, done = time.time() + 0.3, context.Barrier(8)
    crowd = [context.Process(target=_grab, args=(path, start, won, done)) for _ in range(8)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert won.qsize() == 1


def _dead() -> holder.Mark:
    """A process that was and is no more."""
    context = multiprocessing.get_context("fork")
    marks: multiprocessing.Queue[holder.Mark] = context.Queue()
    process = context.Process(target=lambda: marks.put(this_process().mark))
    process.start()
    mark = marks.get()
    process.join()
    return mark


def test_a_draft_of_the_dead_goes_at_once_even_if_nothing_was_written_yet(tmp_path: Path) -> None:
    for kind in ("draft", "now"):
        (tmp_path / _dead().new_name(kind)).touch()
    tidy_claims(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_draft_of_the_living_stays_however_old_it_is(tmp_path: Path) -> None:
    mine = tmp_path / this_process().mark.new_name("draft")
    mine.touch()
    os.utime(mine, (0, 0))
    tidy_claims(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


def test_a_draft_of_another_machine_goes_by_its_age(tmp_path: Path) -> None:
    draft = tmp_path / _dead()._replace(boot="other", machine="far").new_name("draft")
    draft.touch()
    tidy_claims(tmp_path)
    assert list(tmp_path.iterdir()) == [draft]
    then = time.time() - claims.PATIENCE - 20
    os.utime(draft, (then, then))
    tidy_claims(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_tell_whose_a_file_is_and_foreign_ones_nothing() -> None:
    me = this_process().mark
    assert mark_in(me.new_name("draft")) == me
    assert me.is_gone() is False
    assert me._replace(pid=10**11).is_gone() is True
    assert me._replace(started="1").is_gone() is True
    assert me._replace(space="other").is_gone() is None
    assert me._replace(boot="").is_gone() is None
    for name in (".cafe.draft", ".a-b-c-d-e-f.draft", f".{'9' * 400}-1-a-b-c-d.draft", ".claim"):
        assert mark_in(name) is None


def _needs_rename_new(folder: Path) -> None:
    old, new = folder / "old", folder / "new"
    old.touch()
    try:
        rename_new(old, new)
    except OSError as error:
        pytest.skip(f"neither this system nor this file system can do it: {error}")
    finally:
        old.unlink(missing_ok=True)
        new.unlink(missing_ok=True)


def test_a_new_name_replaces_nothing(tmp_path: Path) -> None:
    _needs_rename_new(tmp_path)
    one, two, taken = tmp_path / "one", tmp_path / "two", tmp_path / "taken"
    one.write_text("1")
    two.write_text("2")
    rename_new(one, taken)
    assert (taken.read_text(), one.exists()) == ("1", False)
    with pytest.raises(FileExistsError):
        rename_new(two, taken)
    assert (taken.read_text(), two.read_text()) == ("1", "2")
    with pytest.raises(FileNotFoundError):
        rename_new(one, tmp_path / "three")


KILLED_AT_EACH_STEP = """
import os, pathlib, signal, sys
from bench.system import claims
from bench.system.claims import tidy_claims, try_claim
from bench.system.holder import this_process
folder, links, over = sys.argv[1:]
left = None

def refuse(*_):
    raise PermissionError

def rename_new(*names, real=claims.rename_new):
    hook("open", names)
    real(*names)
    hook("open", names)

def fdopen(*given, real=os.fdopen):
    hook("open", (folder,))
    return real(*given)

claims.rename_new, os.fdopen = rename_new, fdopen
if links == "no":
    os.link = refuse

def hook(event, arguments):
    global left
    if left is None or event not in ("open", "os.link", "os.remove", "os.rename"):
        return
    if folder in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
status, steps = 1, 0
dead = this_process().model_copy(update={"started": "1"})
while status:
    if over:
        pathlib.Path(folder, ".x.claim").write_text(dead.model_dump_json())
    child = os.fork()
    if not child:
        left = steps
        try_claim(pathlib.Path(folder, ".x.claim")).release()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    steps += 1
    tidy_claims(pathlib.Path(folder))
    assert os.listdir(folder) == [], (steps, os.listdir(folder))
print(steps)
"""


@pytest.mark.parametrize("links", ["yes", "no"])
@pytest.mark.parametrize("over", ["", "a claim of the dead"])
def test_a_process_killed_at_any_step_of_making_a_claim_leaves_nothing(
    tmp_path: Path, links: str, over: str
) -> None:
    if links == "no":
        _needs_rename_new(tmp_path)
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path), links, over]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 4


def test_claims_of_the_dead_are_tidied_up_and_those_of_the_living_stay(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, bench.system.claims\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "claim = bench.system.claims.try_claim(place / '.dead.claim')\n"
        "for name in ('.dead.claim.turn', '.0123.draft'):\n"
        "    os.link(claim.path, place / name)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    mine = try_claim(tmp_path / ".mine.claim")
    assert mine is not None
    fresh = tmp_path / ".cafe.draft"
    fresh.write_text("")  # somebody may be writing it
    assert len(list(tmp_path.iterdir())) == 5
    tidy_claims(tmp_path)
    assert sorted(tmp_path.iterdir()) == [fresh, mine.path]
    assert mine.is_mine()
    mine.release()
