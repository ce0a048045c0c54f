"""Content of table cells: values with errors, differences, ranges, and rows without a value."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiment.formatting import decimals, error_decimals, number, with_error
from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.document import DASH, Text
from metrics.base import Estimate


def value_text(found: Estimate, digits: int, bold: bool = False, marks: str = "") -> Text:
    """A value with its error; `digits` decimals without an error."""
    text, error = with_error(found, digits)
    return Text(text, marks, bold, error)


def difference_text(value: float, se: float | None, star: bool, digits: int | None = None) -> Text:
    """A signed difference with its standard error, and a star if it is significant.

    Without an error above 0 it has `digits` decimals, by default as many as it needs.
    """
    if se:
        digits = error_decimals(se)
    elif digits is None:
        digits = decimals([value])
    sign = "+" if value > 0 else ""
    error = "" if se is None else f"± {number(se, digits)}"
    return Text(f"{sign}{number(value, digits)}", "*" if star else "", error=error)


def span(shown: Sequence[str]) -> str:
    """The first and last of ascending numbers, one number if they agree, a dash for none."""
    if not shown:
        return DASH
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]}{DASH}{shown[-1]}"


class Footnotes:
    """Footnotes of a table on rows without a value; equal texts share one of `marks`."""

    def __init__(self, marks: str = "abcdefghijklmnopqrstuvwxyz") -> None:
        self._marks: dict[str, str] = {}
        self._symbols = marks

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Every mark with its text, in order."""
        return tuple((mark, text) for text, mark in self._marks.items())

    def events(self, rows: Sequence[Row | InversionRow]) -> Text:
        """The outcomes of rows without a value, with the mark of each reason."""
        marks = dict.fromkeys(map(self._mark, rows))
        events = dict.fromkeys(DASH if row.status == "skip" else row.status for row in rows)
        return Text("/".join(events), ",".join(marks))

    def _mark(self, row: Row | InversionRow) -> str:
        reason = " ".join(row.reason.split()) or "no reason given"
        return self.mark(f"{'skipped' if row.status == 'skip' else row.status}: {reason}")

    def mark(self, text: str) -> str:
        """The mark of a footnote: one symbol, or the same symbol twice and so on."""
        times, i = divmod(len(self._marks), len(self._symbols))
        return self._marks.setdefault(text, self._symbols[i] * (times + 1))
