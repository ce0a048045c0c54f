import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import _marker, _soft

from bench.system import leases, places
from bench.system.leases import GRACE, PATIENCE, read_holder, tidy_leases, try_lease

FAR = "filelock/2\npid=7\nhost=far\nmode=lease\ntoken=t\nduration=120.0\n"
"""The lease of a process on another machine."""


def _silent(path: Path, seconds: float, content: str | None = None) -> None:
    """Make a lease look last touched `seconds` ago; write `content` to it first if given."""
    if content is not None:
        path.write_text(content)
    then = time.time() - seconds
    os.utime(path, (then, then))


def _killed(path: Path) -> None:
    """Leave the lease of a killed process at `path`."""
    code = (
        "from bench.system.leases import *\nimport signal, sys\n"
        "lease = try_lease(Path(sys.argv[1]))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert path.exists()


def test_one_thread_holds_a_lease_and_another_may_release_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / ".x.lease"
    with ThreadPoolExecutor(8) as pool:
        (lease,) = [lease for lease in pool.map(try_lease, [path] * 8) if lease is not None]
        assert try_lease(path) is None
        assert read_holder(path) == f"process {os.getpid()} on {os.uname().nodename}"
        assert lease.is_mine()
        pool.submit(lease.release).result()
    assert not lease.is_mine()
    assert read_holder(path) is None
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_child_process_does_not_hold_the_lease_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / ".x.lease"
    lease = try_lease(path)
    assert lease is not None
    child = os.fork()
    if not child:
        held = lease.is_mine() or try_lease(path) is not None
        lease.release()
        os._exit(held)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lease.is_mine()
    lease.release()


@pytest.mark.parametrize("exchange", [True, False])
def test_lease_of_a_killed_process_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:  # as on NFS and SMB
        monkeypatch.setattr(_soft, "exchange_names", lambda *_: False)
    path = tmp_path / ".x.lease"
    _killed(path)
    lease = try_lease(path)
    assert lease is not None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "live", "stale"),
    [(FAR, PATIENCE - 20, PATIENCE + 20), ("", 0, GRACE + 1), (FAR[:20], 0, GRACE + 1)],
)
def test_lease_of_another_machine_or_unreadable_lease_expires(
    tmp_path: Path, content: str, live: float, stale: float
) -> None:
    path = tmp_path / ".x.lease"
    _silent(path, live, content)
    assert try_lease(path) is None
    assert read_holder(path) == ("process 7 on far" if content == FAR else None)
    _silent(path, stale)
    lease = try_lease(path)
    assert lease is not None
    assert list(tmp_path.iterdir()) == [path]


def test_tidying_removes_an_unreadable_lease_unless_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".x.lease"
    path.touch()
    with monkeypatch.context() as patch:
        written = SimpleNamespace(sleep=lambda _: path.write_text(FAR))
        patch.setattr(leases, "time", written)
        tidy_leases(tmp_path)
    assert path.read_text() == FAR
    path.write_text("")
    tidy_leases(tmp_path)
    assert not path.exists()


def test_suspended_process_loses_its_lease_and_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".x.lease"
    first = try_lease(path)
    assert first is not None
    _silent(path, PATIENCE + 20)
    # The whole machine was suspended; the holder wakes up together with this process.
    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=lambda _: os.utime(path)))
    assert try_lease(path) is None
    assert first.is_mine()
    _silent(path, PATIENCE + 20)
    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=lambda _: None))
    second = try_lease(path)
    assert second is not None
    assert not first.is_mine()
    first.release()
    assert second.is_mine()


@pytest.mark.parametrize("content", [FAR, FAR.replace("pid=7", "pid=8")])
def test_lease_touched_or_replaced_before_its_removal_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / ".x.lease"
    _silent(path, PATIENCE + 20, FAR)
    names: list[str] = []

    def name(_: int) -> str:
        names.append(str(len(names)))
        if len(names) == 2:  # for the file that is moved aside
            path.write_text(content)
        return names[-1]

    monkeypatch.setattr(leases, "secrets", SimpleNamespace(token_hex=name))
    assert try_lease(path) is None
    assert len(names) == 2
    assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


def test_holder_touches_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.01)
    lease = try_lease(tmp_path / ".x.lease")
    assert lease is not None
    os.utime(lease.path, (0, 0))
    for _ in range(500):
        if lease.path.stat().st_mtime > 0:
            break
        time.sleep(0.01)
    assert lease.path.stat().st_mtime > 0


def _grab(path: Path, start: float, won: "multiprocessing.Queue[int]", done: BarrierType) -> None:
    time.sleep(max(0.0, start - time.time()))
    for _ in range(50):
        lease = try_lease(path)
        if lease is not None:
            won.put(os.getpid())
            break
    done.wait()  # a process that ends gives up its lease


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("stale", ["", "killed", "silent"])
def test_exactly_one_of_many_processes_gets_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: str, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(_soft, "exchange_names", lambda *_: False)
    path = tmp_path / ".x.lease"
    if stale == "killed":
        _killed(path)
    elif stale:
        _silent(path, PATIENCE + 20, FAR)
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    start, done = time.time() + 0.3, context.Barrier(8)
    crowd = [context.Process(target=_grab, args=(path, start, won, done)) for _ in range(8)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert won.qsize() == 1


def test_tidying_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".dead.lease", ".lease", ".x.lease.break.5.0f", ".y.lease.0f"):
        _killed(tmp_path / name)
    mine = try_lease(tmp_path / ".mine.lease")
    assert mine is not None
    others = {".far.lease": FAR, "a.lease": "", ".release": ""}
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    tidy_leases(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".mine.lease", *others}
    assert mine.is_mine()
    tidy_leases(tmp_path / "missing")


KILLED_AT_EACH_STEP = """
import os, pathlib, signal, sys, time
from bench.system.leases import tidy_leases, try_lease
folder, dead = pathlib.Path(sys.argv[1]), sys.argv[2]
left = None

def hook(event, arguments):
    global left
    if left is None or event not in ("open", "os.remove", "os.rename", "os.utime"):
        return
    if str(folder) in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
status, steps = 1, 0
while status:
    if dead:
        pathlib.Path(folder, ".x.lease").write_text(dead)
        os.utime(pathlib.Path(folder, ".x.lease"), (0, 0))
    child = os.fork()
    if not child:
        left = steps
        try_lease(pathlib.Path(folder, ".x.lease")).release()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    steps += 1
    tidy_leases(folder)
    for path in folder.iterdir():  # it was killed before it wrote whose it is
        assert path.read_bytes() == b"", (steps, path)
        os.utime(path, (0, 0))
    tidy_leases(folder)
    assert os.listdir(folder) == [], (steps, os.listdir(folder))
print(steps)
"""


@pytest.mark.parametrize("dead", ["", FAR])
def test_process_killed_at_any_step_leaves_nothing_for_long(tmp_path: Path, dead: str) -> None:
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path), dead]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > (8 if dead else 2)


@pytest.mark.parametrize("when", ["before", "between"])
def test_no_lease_is_made_where_a_mount_has_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    acquire = leases.Lease.acquire

    def vanish() -> None:
        disk.rename(tmp_path / "aside")
        disk.mkdir()

    def late(lease: leases.Lease) -> None:
        vanish()
        acquire(lease)

    if when == "between":
        monkeypatch.setattr(leases.Lease, "acquire", late)

    def work() -> None:
        with places.holding(disk):
            if when == "before":
                vanish()
            try_lease(disk / ".x.lease")

    with pytest.raises(OSError, match="It is gone"):
        work()
    assert list(disk.iterdir()) == []


def test_full_disk_error_names_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_marker, "write_all", full)
    with pytest.raises(OSError, match="No space left") as caught:
        try_lease(tmp_path / ".x.lease")
    assert caught.value.filename == str(tmp_path / ".x.lease")
    assert list(tmp_path.iterdir()) == []
