"""Names of files from names in rows."""

from __future__ import annotations

import hashlib
import re


def slug(*parts: str) -> str:
    """Make a file name of names in rows; a part that has to be altered gets a hash as well."""

    def safe(part: str) -> str:
        # Lower case, since two names that differ in case are one file on some systems.
        kept = re.sub(r"[^a-z0-9._]+", "-", part.lower()).strip("-.")[:60]
        if kept == part:
            return kept
        return f"{kept}-{hashlib.sha256(part.encode()).hexdigest()[:6]}".lstrip("-")

    return "-".join(safe(part) for part in parts if part)
