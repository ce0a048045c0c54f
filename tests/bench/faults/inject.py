"""Simulated write errors: from the n-th operation on, or beyond a file size."""

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

_CREATES = {"open": 2, "os.mkdir": 0, "os.link": 0, "os.rename": 0}
"""Audited operations that need disk space, with the index of their flags argument (0: none)."""


class _Disk:
    """Counts operations below a folder and fails from a given one on."""

    def __init__(self) -> None:
        self.below: str | None = None
        self.count = 0
        self.fails_from = sys.maxsize
        self.number = errno.ENOSPC
        self.action: Callable[[], None] | None = None

    def meet(self, path: object) -> None:
        if self.below is None:
            return
        self.count += 1
        if self.count >= self.fails_from:
            if self.action is not None:
                self.below = None  # operations of the action are not counted
                self.action()
                return
            name = None if path is None else str(path)
            raise OSError(self.number, os.strerror(self.number), name)

    def holds(self, path: object) -> bool:
        if self.below is None or not isinstance(path, str | bytes | os.PathLike):
            return False
        return str(Path(os.fsdecode(path)).absolute()).startswith(self.below)


_disk = _Disk()


def _hook(event: str, arguments: tuple) -> None:
    # An audit hook cannot be removed; this one does nothing unless a disk is failing.
    if _disk.below is None or event not in _CREATES or not _disk.holds(arguments[0]):
        return
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    _disk.meet(arguments[0])


sys.addaudithook(_hook)


def _file_of(handle: int) -> Path | str | None:
    try:
        return Path(f"/proc/self/fd/{handle}").readlink()
    except OSError:  # the system does not provide this path
        return _disk.below


@contextmanager
def failing(below: Path, fails_from: int, number: int = errno.ENOSPC) -> Iterator[_Disk]:
    """Let operations that need disk space below a folder fail from the `fails_from`-th one on.

    These are: opening for writing, creating a folder, renaming, linking and fsync. Existing files
    can be read and removed, as on a full disk. `count` of the context is the number of operations.
    """
    real = os.fsync

    def fsync(handle: int) -> None:
        if _disk.holds(_file_of(handle)):
            _disk.meet(None)
        real(handle)

    _disk.below, _disk.count = str(below.absolute()), 0
    _disk.fails_from, _disk.number = fails_from, number
    try:
        with mock.patch.object(os, "fsync", fsync):
            yield _disk
    finally:
        _disk.below = None


@contextmanager
def before_operation(below: Path, number: int, action: Callable[[], None]) -> Iterator[_Disk]:
    """Call `action` right before the `number`-th of the operations that `failing` counts."""
    _disk.action = action
    try:
        with failing(below, number) as disk:
            yield disk
    finally:
        _disk.action = None


@contextmanager
def no_file_larger(size: int) -> Iterator[None]:
    """Let the kernel refuse to grow any file beyond `size` bytes, whichever library writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
