"""What a user can choose about a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.experiment.inversion_rows import InversionRow


@dataclass(frozen=True)
class PaperOptions:
    """What tables for a paper show, and how many columns of the paper they span: 1 or 2.

    Without `guidance` there are at most five scales. Without `metrics`, which are names such as
    "fd" or "precision", there are the leading measure, precision and recall.
    """

    guidance: tuple[float, ...] = ()
    metrics: tuple[str, ...] = ()
    columns: int = 2


@dataclass(frozen=True)
class ReportOptions:
    """What a report has besides the figures and tables of its rows."""

    published: Path | None = None
    """A CSV of published numbers to draw in grey."""
    note: Mapping[str, str] = field(default_factory=dict)
    """Facts for the page."""
    inversions: Sequence[InversionRow] = ()
    """The rows of a separate section."""
    paper: PaperOptions = PaperOptions()
    pdf: bool = False
    """Whether figures are also written as PDF."""
    all_figures: bool = False
    """Whether figures of every measure and line are drawn."""
    x: str = "g"
    """The axis of figures against guidance: see `across`."""


DEFAULT = ReportOptions()
