"""Damaged files of a cache: said in one sentence, and made again."""

from __future__ import annotations

import logging
from pathlib import Path


def tell_damaged(path: Path) -> None:
    """Say on stderr, unless logging is set up otherwise, that a file is damaged and made again."""
    logging.getLogger(__name__).warning(
        "%s is cut short or damaged and does not hold what was written: it is computed again.", path
    )
