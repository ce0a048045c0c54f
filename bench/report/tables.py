"""Tables of methods by guidance, one per data set and measure, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from bench.report.frame import Cell, Column, Data, Series
from bench.store import Row

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Text:
    """Content of one table cell: unescaped text, the marks of its footnotes, best or not."""

    text: str
    marks: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One table row: a method at a number of steps, one cell per guidance scale."""

    label: str
    nfe: str
    seconds: str
    cells: tuple[Text, ...]
    floor: bool = False


@dataclass(frozen=True)
class Table:
    """One measure of one data set; `notes` are footnotes as (mark, text), '' for general ones."""

    column: Column
    guidance: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """Name of the measure with its arrow, extractor and n."""
        return f"{self.column.title} {self.column.arrow}".strip()


def make_table(data: Data, column: Column) -> Table:
    """Make the table of one measure: the best of every guidance scale in bold, the floor last."""
    guidances = data.guidances(column.dataset)
    lines = [(s, [data.cell(column, s, g) for g in guidances]) for s in data.series(column.dataset)]
    # A line without a single value or event would be empty: its metric does not apply.
    lines = [(s, cells) for s, cells in lines if any(c.values or c.troubles for c in cells)]
    floor = data.floor(column)
    every = [v for _, cells in lines for c in cells for v in c.values] + [*floor.values]
    digits = decimals(every)
    notes = _Notes()
    counts = {len(c.values) for c in chain([floor], *(cells for _, cells in lines))} - {0, 1}
    count = counts.pop() if len(counts) == 1 else 0
    texts = [[_text(cell, digits, count, notes) for cell in cells] for _, cells in lines]
    for j in range(len(guidances)):
        for i in _best([cells[j] for _, cells in lines], column.direction, digits):
            texts[i][j] = replace(texts[i][j], bold=True)
    done = [
        Line(series.label, *costs(data, series), tuple(cells))
        for (series, _), cells in zip(lines, texts, strict=True)
    ]
    if floor.values:
        shown = _number(floor, digits, count)
        label = "real vs. real (floor)"
        done.append(Line(label, DASH, DASH, (Text(shown),) * len(guidances), floor=True))
    if count or counts:
        behind = f"{count} runs" if count else "runs, their number behind"
        text = (
            f"± is the standard deviation over {behind}; runs differ in training or sampling seed."
        )
        notes.general.append(text)
    if floor.values and guidances:
        notes.general.append("The floor takes no guidance and repeats in every column.")
    notes.general += [text for noted, text in data.notes if noted == column]
    return Table(
        column=column,
        guidance=tuple(f"{g:g}" for g in guidances),
        lines=tuple(done),
        notes=(*((mark, text) for text, mark in notes.marks.items()), *notes.general_pairs()),
    )


def decimals(values: Sequence[float]) -> int:
    """Decimals for a table whose largest entry has about four significant digits."""
    largest = max((abs(v) for v in values), default=0.0)
    return next((d for limit, d in ((0.1, 5), (10, 3), (100, 2)) if largest < limit), 1)


def number(value: float, digits: int) -> str:
    """Return fixed decimals, but never a zero for what is not zero."""
    fixed = f"{value:.{digits}f}"
    if abs(value) >= 1e6 or (value != 0.0 and float(fixed) == 0.0):
        return f"{value:.1e}"
    return fixed


def costs(data: Data, series: Series) -> tuple[str, str]:
    """NFE and seconds per image of a line; a range where they depend on guidance."""
    rows = [row for row in data.rows_of(series) if row.status == "ok"]
    nfe = sorted({row.nfe for row in rows})
    # 0.0 is what a row says when nothing was timed.
    seconds = sorted(row.seconds_per_image for row in rows if row.seconds_per_image > 0)
    return (
        _range([str(v) for v in nfe]),
        _range([f"{v:.2g}" for v in seconds]),
    )


def _range(shown: list[str]) -> str:
    if not shown:
        return DASH
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]}{DASH}{shown[-1]}"


class _Notes:
    """Footnotes of one table: equal texts share a mark."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}
        self.general: list[str] = []

    def mark(self, text: str) -> str:
        count = len(self.marks)
        letters = "abcdefghijklmnopqrstuvwxyz"
        return self.marks.setdefault(text, letters[count % 26] * (count // 26 + 1))

    def general_pairs(self) -> list[tuple[str, str]]:
        return [("", text) for text in self.general]


def _text(cell: Cell, digits: int, count: int, notes: _Notes) -> Text:
    found = dict.fromkeys(notes.mark(_trouble(row)) for row in cell.troubles)
    marks = ",".join(found)
    if cell.values:
        return Text(_number(cell, digits, count), marks)
    if not cell.troubles:
        return Text("")
    events = dict.fromkeys(row.status for row in cell.troubles)
    return Text("/".join(DASH if e == "skip" else e for e in events), marks)


def _trouble(row: Row) -> str:
    reason = " ".join(row.reason.split()) or "no reason given"
    return f"{'skipped' if row.status == 'skip' else row.status}: {reason}"


def _number(cell: Cell, digits: int, count: int) -> str:
    """Mean and spread; the number of runs too unless it is `count`, which a footnote states."""
    if len(cell.values) == 1:
        return number(cell.mean, digits)
    behind = "" if len(cell.values) == count else f" ({len(cell.values)})"
    return f"{number(cell.mean, digits)} ± {number(cell.sd, digits)}{behind}"


def _best(cells: Sequence[Cell], direction: str, digits: int) -> list[int]:
    """Return indices of the best cells, ties as displayed; none without rivals or a direction.

    A mean over the runs that did not diverge is not in the running: it is flattered.
    """
    means = {i: c.mean for i, c in enumerate(cells) if c.values and not c.troubles}
    if direction == "none" or len(means) < 2:
        return []
    top = (min if direction == "lower" else max)(means.values())
    return [i for i, mean in means.items() if number(mean, digits) == number(top, digits)]


def markdown(tables: Sequence[Table], head: Sequence[str]) -> str:
    """All tables as GitHub-flavoured Markdown below a title and general remarks."""
    out = [f"# {md(head[0])}", *(md(line) for line in head[1:])]
    dataset = None
    for table in tables:
        if table.column.dataset != dataset:
            dataset = table.column.dataset
            out.append(f"## {md(dataset)}")
        out.append(f"### {md(table.title)}")
        names = ["method", "NFE", "s/image", *(f"g = {g}" for g in table.guidance)]
        rows = [f"| {' | '.join(names)} |", "|" + " --- |" + " ---: |" * (len(names) - 1)]
        for line in table.lines:
            label = f"*{md(line.label)}*" if line.floor else md(line.label)
            cells = [label, line.nfe, line.seconds, *(md_cell(c) for c in line.cells)]
            rows.append(f"| {' | '.join(cells)} |")
        out.append("\n".join(rows))
        if table.notes:
            notes = (f"<sup>{m}</sup> {md(t)}" if m else md(t) for m, t in table.notes)
            out.append("  \n".join(notes))
    return "\n\n".join(out) + "\n"


def md(text: str) -> str:
    """Text as Markdown shows it verbatim; underscores inside a word need nothing."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def md_cell(cell: Text) -> str:
    """A cell as Markdown; its text is a number or a word of the report's own."""
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text}<sup>{cell.marks}</sup>" if cell.marks else text
