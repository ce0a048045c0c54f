"""Whole files: text and bytes written atomically, and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from metrics.files import atomic_file, atomic_path, make_folder, sync_folder, tidy

__all__ = [
    "atomic_path",
    "make_folder",
    "sha256",
    "sync_folder",
    "tidy",
    "write_bytes",
    "write_text",
]


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
