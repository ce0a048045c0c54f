"""Files that are whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from metrics.files import atomic_file


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without error."""
    with atomic_file(path) as file:
        yield Path(file.name)


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
