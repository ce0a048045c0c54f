"""Writing files so that an interrupted report leaves the old one."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write under a temporary name in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def slug(*parts: str) -> str:
    """Make a file name of names in rows; a part that has to be altered gets a hash as well."""

    def safe(part: str) -> str:
        # Lower case, since two names that differ in case are one file on some systems.
        kept = re.sub(r"[^a-z0-9._]+", "-", part.lower()).strip("-.")[:60]
        if kept == part:
            return kept
        return f"{kept}-{hashlib.sha256(part.encode()).hexdigest()[:6]}".lstrip("-")

    return "-".join(safe(part) for part in parts if part)
