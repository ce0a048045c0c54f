"""SHA-256 of large files, with progress where that takes more than a moment."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.system.progress import SILENT, Reporter

SHOWN_FROM = 1 << 30
CHUNK = 1 << 20


def sha256(path: Path, reporter: Reporter = SILENT) -> str:
    """SHA-256 of a file's bytes; shows the progress in MiB for 1 GiB or more."""
    size = path.stat().st_size
    shown = reporter if size >= SHOWN_FROM else SILENT
    digest = hashlib.sha256()
    with path.open("rb") as file, shown.bar(f"{path.name}: MiB", size // CHUNK) as bar:
        done = 0
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += 1
            if done % 64 == 0:
                bar.update(done)
    return digest.hexdigest()
