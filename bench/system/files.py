"""Whole files: text and bytes written atomically, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from metrics.files import atomic_file, atomic_path, make_folder, sync_folder, tidy

__all__ = [
    "atomic_path",
    "check_regular",
    "make_folder",
    "read_whole",
    "sha256",
    "sync_folder",
    "tidy",
    "write_bytes",
    "write_text",
]

MOST = 256 << 20
"""Bytes of a file that is read as a whole; those written here have a few MB at most."""


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


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
