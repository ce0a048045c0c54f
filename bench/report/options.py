"""What a user can choose about a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperOptions:
    """What tables for a paper show, and how many columns of the paper they span: 1 or 2.

    Without `guidance` there are at most five scales. Without `metrics`, which are names such as
    "fd" or "precision", there are the leading measure, precision and recall.
    """

    guidance: tuple[float, ...] = ()
    metrics: tuple[str, ...] = ()
    columns: int = 2


DEFAULT = PaperOptions()
