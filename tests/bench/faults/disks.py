"""Failing disks: real mounts in a private mount namespace, or injected errors."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from unittest import mock

import pytest

from bench.system import files
from tests.bench.faults.inject import failing

PAGE = os.sysconf("SC_PAGE_SIZE")
REAL = "BENCH_TESTS_ON_REAL_MOUNTS"
ROOM = "16m"


class Disk(Protocol):
    """A folder on a disk that can become full, read-only or unavailable."""

    folder: Path

    def full(self, room: int) -> AbstractContextManager[object]:
        """Inside the block, leave room for little more than the present content."""

    def read_only(self) -> AbstractContextManager[object]:
        """Inside the block, refuse all writes."""

    def vanish(self) -> None:
        """Remove the disk and its content until `come_back`."""

    def come_back(self) -> None:
        """Restore the disk with its content."""


class Injected:
    """A folder whose faults are injected into this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._aside = folder / "disk", folder / "aside"
        self.folder.mkdir()

    def full(self, room: int) -> AbstractContextManager[object]:
        # One cell takes five operations that need room.
        return failing(self.folder, 1 + 5 * room)

    def read_only(self) -> AbstractContextManager[object]:
        return failing(self.folder, 1, errno.EROFS)

    def vanish(self) -> None:
        self.folder.rename(self._aside)
        self.folder.mkdir()

    def come_back(self) -> None:
        shutil.rmtree(self.folder)
        self._aside.rename(self.folder)


class Mounted:
    """An in-memory file system mounted at the folder; needs a command prefix from `namespace`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._all = folder / "disk", folder / "all"
        for place in (self.folder, self._all):
            place.mkdir()
        _do("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "bench-test", self._all)
        self.come_back()

    @contextmanager
    def full(self, room: int) -> Iterator[None]:
        at = os.statvfs(self._all)
        size = (at.f_blocks - at.f_bfree) * at.f_frsize + (room + 1) * PAGE  # 0 would mean no limit
        _do("mount", "-o", f"remount,size={size}", self._all)
        try:
            yield
        finally:
            _do("mount", "-o", f"remount,size={ROOM}", self._all)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        _do("mount", "-o", "remount,bind,ro", self.folder)
        try:
            yield
        finally:
            _do("mount", "-o", "remount,bind,rw", self.folder)

    def vanish(self) -> None:
        _do("umount", "--lazy", self.folder)

    def come_back(self) -> None:
        _do("mount", "--bind", self._all, self.folder)

    def close(self) -> None:
        """Unmount everything, so that the folder can be removed."""
        for place in (self.folder, self._all):
            _do("umount", "--lazy", place)


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """Inside the block, deny writes below a folder; for root, the error is injected."""
    if os.geteuid() == 0:
        with failing(folder, 1, errno.EACCES):
            yield
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    try:
        yield
    finally:
        for each in folders:
            each.chmod(0o755)


def as_if_ended(folder: Path) -> None:
    """Make the leases of this process look like those of a process that has ended."""
    files._tidied.clear()  # a process tidies each folder only once
    for lease in folder.rglob(".*lease*"):
        lease.write_text(re.sub("start=.*", "start=1", lease.read_text()))


@contextmanager
def at_synchronisation(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` right before the `number`-th fsync of a file or folder."""
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            action()
        real(handle)

    with mock.patch.object(os, "fsync", fsync):
        yield
    assert count >= number


def namespace(folder: Path) -> tuple[list[str], str]:
    """The command prefix that allows mounting; or an empty list and the reason."""
    why = "the program unshare is not installed"
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        before = ["unshare", *options]
        if shutil.which(before[0]) is not None:
            trial = [*before, "mount", "-t", "tmpfs", "bench-test", str(folder)]
            ran = subprocess.run(trial, capture_output=True, text=True, check=False)
            if ran.returncode == 0:
                return before, ""
            why = ran.stderr.strip()
    return [], why


def run_on_real_mounts(file: str, place: Path) -> None:
    """Run a test file on real mounts; skip the calling test where mounting is not allowed."""
    trial = place / "trial"
    trial.mkdir()
    before, why = namespace(trial)
    if not before:
        pytest.skip(f"mounting is not allowed here: {why}")
    command = [*before, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file]
    ran = subprocess.run(
        [*command, "--basetemp", str(place / "inside")],
        cwd=Path(__file__).parents[3], env=os.environ | {REAL: "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _do(*command: object) -> None:
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
