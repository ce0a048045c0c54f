"""Files that are either whole or absent, whatever ends the process or the power."""

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

from rich.console import Console

from bench.system import places
from bench.system.progress import Bar

if sys.platform != "win32":
    import fcntl

SHOWN_FROM = 1 << 30
CHUNK = 1 << 20
MOST = 256 << 20
"""Bytes of a file that is read as a whole; those written here have a few MB at most."""
WRITING = ".writing"
"""Ends the name of a hidden folder in which a file is written before it takes its place."""

_tidied: set[Path] = set()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path below `path`'s folder that takes its place once it is written and on disk.

    Missing folders are made. If the block raises, nothing is left behind; what processes left
    that were killed here is removed first. OSError if a folder of `places.hold` has gone.
    """
    make_folder(path.parent)
    tidy(path.parent)
    # A folder, because some libraries write through temporary files of their own beside a path.
    # Its name is known before it exists, so that an interrupt at any time finds it.
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}{WRITING}")
    temporary = folder / "part"
    lock = None
    try:
        lock = _make_locked(folder)
        places.check()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # A library's own temporary file may be nobody else's to read; the result is.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # A write and a flush that fail do not say of which file.
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only once it is written and on disk."""
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        yield file


def make_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it, each on disk under its name."""
    if folder.is_dir():
        return
    places.check()
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; files that are there need that beside their own."""
    with suppress(OSError):  # Windows has no such call
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left of files in a folder.

    What a living process is writing stays. A process looks into each folder once.
    """
    if sys.platform == "win32" or folder.absolute() in _tidied:
        return
    _tidied.add(folder.absolute())
    left: list[Path] = []
    with suppress(OSError), os.scandir(folder) as entries:
        left = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(".")
            and entry.name.endswith(WRITING)
            and entry.is_dir(follow_symlinks=False)
        ]
    for old in left:
        with suppress(OSError):
            lock = os.open(old, os.O_RDONLY)
            try:
                # The system lets go of the lock of a process that has died, and of no other.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
            finally:
                os.close(lock)


def _make_locked(folder: Path) -> int | None:
    """Make a new folder, and hold the lock that says that its writer is alive."""
    while True:
        folder.mkdir(0o700)
        if sys.platform == "win32":
            return None
        with suppress(FileNotFoundError):  # before it was locked, it was taken for a leftover
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks is not tidied either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return lock
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder of files; one that resists is left for the next process."""
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
        folder.rmdir()


def check_regular(path: Path) -> int:
    """Size of a file in bytes; OSError, with the reason, unless it is a regular one.

    Opening a pipe waits for a writer, who may never come, and a device may never end.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is a pipe, socket or device and no file", str(path))
    return status.st_size


def read_whole(path: Path, most: int = MOST) -> bytes:
    """The bytes of a regular file; OSError, with the reason, for anything else or above `most`."""
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


def sha256(path: Path, console: Console | None = None) -> str:
    """SHA-256 of a file's bytes; from 1 GiB up the console shows progress in MiB."""
    size = check_regular(path)
    shown = console if size >= SHOWN_FROM else None
    digest = hashlib.sha256()
    with path.open("rb") as file, Bar(f"{path.name}: MiB", size // CHUNK, 0, shown) as bar:
        for done, chunk in enumerate(iter(partial(file.read, CHUNK), b""), 1):
            digest.update(chunk)
            if done % 64 == 0:
                bar.update(done)
    return digest.hexdigest()


def tell_damaged(path: Path) -> None:
    """Say on stderr, unless logging is set up otherwise, that a file is damaged and made again."""
    logging.getLogger(__name__).warning(
        "%s is cut short or damaged and does not hold what was written: it is computed again.", path
    )
