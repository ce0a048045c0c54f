"""SHA-256 of large files, with progress where that takes more than a moment."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.console import Console

from bench.system.progress import Bar

SHOWN_FROM = 1 << 30
CHUNK = 1 << 20


def sha256(path: Path, console: Console | None = None) -> str:
    """SHA-256 of a file's bytes; of one of 1 GiB or more the console shows the progress in MiB."""
    size = path.stat().st_size
    shown = console if size >= SHOWN_FROM else None
    digest = hashlib.sha256()
    with path.open("rb") as file, Bar(f"{path.name}: MiB", size // CHUNK, 0, shown) as bar:
        done = 0
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += 1
            if done % 64 == 0:
                bar.update(done)
    return digest.hexdigest()
