"""What becomes of a stored row that is computed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["equal", "close", "differs", "stale"]
TOLERANCE = 1e-3
"""Largest relative difference that other hardware or another batch may make by rounding."""


@dataclass(frozen=True)
class Finding:
    """What became of one row: `text` says what differs, or why it was not compared."""

    path: Path
    verdict: Verdict
    text: str = ""
    largest: float = 0.0


def relative_gap(old: float, new: float, least: float = 1e-9) -> float:
    """|old - new| over the larger of both sizes and `least`."""
    return abs(old - new) / max(abs(old), abs(new), least)
