"""Files that are either whole or absent, even after a crash or a power failure."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bench.system import places
from bench.system.progress import SILENT, Reporter

if sys.platform != "win32":
    import fcntl

SHOWN_FROM = 1 << 30
CHUNK = 1 << 20
MOST = 256 << 20
"""Bytes of the largest file that is read at once; files written here have a few MB."""
WRITING = ".writing"
"""Suffix of the hidden folder in which a file is written before it is renamed."""

_tidied: set[Path] = set()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it after it is written and synced to disk.

    Creates missing folders. Leaves nothing behind if the block raises, and first removes what
    killed processes left here. OSError if a folder of `places.hold` has gone.
    """
    make_folder(path.parent)
    tidy(path.parent)
    # A folder, since some libraries write temporary files next to a path. It is named before it
    # exists, so that it is removed after an interrupt at any time.
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}{WRITING}")
    temporary = folder / "part"
    lock = None
    try:
        lock = _make_locked(folder)
        places.check()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # Some libraries make their files readable only by their owner.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # A failed write or flush does not name its file.
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that is renamed to `path` after it is written and synced to disk."""
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        yield file


def make_folder(folder: Path) -> None:
    """Create a folder and the missing ones above it, each synced to disk."""
    if folder.is_dir():
        return
    places.check()
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, which syncing its files does not do."""
    with suppress(OSError):  # Windows has no such call
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove partial files of killed processes from a folder, once per process and folder.

    Files that a running process is writing are kept.
    """
    if sys.platform == "win32" or folder.absolute() in _tidied:
        return
    _tidied.add(folder.absolute())
    left: list[Path] = []
    with suppress(OSError):
        left = [p for p in folder.glob(f".*{WRITING}") if p.is_dir() and not p.is_symlink()]
    for old in left:
        with suppress(OSError):
            lock = os.open(old, os.O_RDONLY)
            try:
                # The system releases the lock when its process ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
            finally:
                os.close(lock)


def _make_locked(folder: Path) -> int | None:
    """Create a folder and lock it, which shows that its writer is running."""
    while True:
        folder.mkdir(0o700)
        if sys.platform == "win32":
            return None
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # without locks nothing is tidied either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return lock
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder of files; on failure it is left for the next process."""
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
        folder.rmdir()


def check_regular(path: Path) -> int:
    """Size of a file in bytes; OSError with the reason unless it is a regular file.

    Opening a pipe may wait forever, and a device may never end.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is a pipe, socket or device and no file", str(path))
    return status.st_size


def read_whole(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file; OSError with the reason for others and above `most` bytes."""
    size = check_regular(path)
    if size > most:
        raise OSError(errno.EFBIG, f"It has {size:,} bytes, more than {most:,}", str(path))
    return path.read_bytes()


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file atomically; returns its path."""
    with atomic_file(path) as file:
        file.write(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically; returns its path."""
    return write_bytes(path, text.encode("utf-8"))


def sha256(path: Path, reporter: Reporter = SILENT) -> str:
    """SHA-256 of a file's bytes; from 1 GiB up it reports progress in MiB."""
    size = check_regular(path)
    shown = reporter if size >= SHOWN_FROM else SILENT
    digest = hashlib.sha256()
    with path.open("rb") as file, shown.bar(f"{path.name}: MiB", size // CHUNK) as bar:
        for done, chunk in enumerate(iter(partial(file.read, CHUNK), b""), 1):
            digest.update(chunk)
            if done % 64 == 0:
                bar.update(done)
    return digest.hexdigest()


def tell_damaged(path: Path) -> None:
    """Log a warning that a file is damaged and computed again."""
    logging.getLogger(__name__).warning("%s is cut short or damaged: it is computed again.", path)
