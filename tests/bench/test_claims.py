import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import claims
from bench.claims import claimed, read_holder, tidy_claims, try_claim


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
    code = "import sys, pathlib, bench.claims\nbench.claims.try_claim(pathlib.Path(sys.argv[1]))"
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
    monkeypatch.setattr(claims, "_machine", lambda: "this")
    path = tmp_path / "x.claim"
    claim = try_claim(path)
    assert claim is not None
    assert try_claim(path) is None
    monkeypatch.setattr(claims, "_boot", lambda: "later")
    assert try_claim(path) is not None


def test_without_hard_links_it_works_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
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


def _grab(path: Path, start: float, won: "multiprocessing.Queue[int]") -> None:
    time.sleep(max(0.0, start - time.time()))
    for _ in range(50):
        claim = try_claim(path)
        if claim is not None:
            won.put(os.getpid())
            time.sleep(1.0)
            return


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path, stale: bool) -> None:
    path = tmp_path / "x.claim"
    if stale:
        _elsewhere(path, claims.PATIENCE + 20)
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    start = time.time() + 0.3
    crowd = [context.Process(target=_grab, args=(path, start, won)) for _ in range(8)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert won.qsize() == 1


def test_claims_of_the_dead_are_tidied_up_and_those_of_the_living_stay(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, bench.claims\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "claim = bench.claims.try_claim(place / '.dead.claim')\n"
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
