"""Tables of methods by guidance, one per data set and measure, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import chain
from types import MappingProxyType

from bench.experiment.formatting import decimals, error_decimals, number, with_error
from bench.experiment.rows import Row
from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.lines import base_of
from bench.report.numbers.pairs import Difference, best_of, differences
from bench.report.numbers.words import BOLD, COMPARED, DIFFERENCES, MINIMUM, error_notes

DASH = "\N{EN DASH}"
FEWEST_SEEDS = 3
"""Of one checkpoint, for the minimum over them to be shown: EDM's number."""


@dataclass(frozen=True)
class Text:
    """Content of one table cell: unescaped text, error, marks of its footnotes, best or not.

    `error` is shown behind the text in small print, such as "± 0.12".
    """

    text: str
    marks: str = ""
    bold: bool = False
    error: str = ""


@dataclass(frozen=True)
class Line:
    """One table row: a method at a number of steps, one cell per guidance scale.

    `aside` is one that restates the line above it in another way.
    """

    label: str
    nfe: str
    seconds: str
    cells: tuple[Text, ...]
    floor: bool = False
    aside: bool = False
    group: str = ""
    """Heading of the lines that it stands with, '' for those that need none."""


@dataclass(frozen=True)
class Table:
    """One measure of one data set; `notes` are footnotes as (mark, text), '' for general ones.

    `differences` are the lines of the table of paired differences, which has the same columns.
    """

    column: Column
    guidance: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...]
    differences: tuple[Line, ...] = ()

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
    valued = [c for c in (floor, *chain.from_iterable(cells for _, cells in lines)) if c.values]
    digits = decimals([v for c in valued for v in c.values])
    notes = _Notes()
    counts = {len(c.blocks) for c in valued if len(c.blocks) > 1 or c.estimate.se is not None}
    # The floor is told apart by its name, single runs among others by having no number behind.
    counts -= {1} if not any(_is_single(c) for _, cells in lines for c in cells) else set()
    count = counts.pop() if len(counts) == 1 else 0
    texts = [[_text(cell, digits, count, notes) for cell in cells] for _, cells in lines]
    found = differences(data, column)
    for j, g in enumerate(guidances):
        against = {d.series: d for d in found if d.guidance == g}
        for i in _best(lines, j, column.direction, digits, against):
            texts[i][j] = replace(texts[i][j], bold=True)
    count_of_seeds = [c.seeds for _, cells in lines for c in cells if c.seeds >= FEWEST_SEEDS]
    done = []
    for (series, cells), shown in zip(lines, texts, strict=True):
        group = f"{base_of(series).label}: guidance rules" if series.rule else ""
        done.append(Line(series.label, *costs(data, series), tuple(shown), group=group))
        if column.about.minimum and any(c.seeds >= FEWEST_SEEDS for c in cells):
            least = min(count_of_seeds)
            minima = tuple(_minimum(cell, least, digits) for cell in cells)
            done.append(
                Line(
                    f"{series.label}: min of {least} seeds", "", "", minima, aside=True, group=group
                )
            )
            notes.general[MINIMUM] = None
    if floor.values:
        text, error = with_error(floor.estimate, digits)
        real = (Text(text, error=error + _behind(floor, count)),) * len(guidances)
        done.append(Line("real vs. real (floor)", DASH, DASH, real, floor=True))
    general = [*error_notes(column.about, valued, count), *notes.general]
    if found:
        general.append(BOLD)
    if floor.values and guidances:
        general.append("The floor takes no guidance and repeats in every column.")
    general += [text for noted, text in data.notes if noted == column]
    return Table(
        column=column,
        guidance=tuple(f"{g:g}" for g in guidances),
        lines=tuple(done),
        notes=(*((m, text) for text, m in notes.marks.items()), *(("", text) for text in general)),
        differences=_difference_lines(data, column, guidances, found)
        if column.about.is_headline
        else (),
    )


def _difference_lines(
    data: Data, column: Column, guidances: Sequence[float], found: Sequence[Difference]
) -> tuple[Line, ...]:
    """The lines of methods that are compared, in the order of the table; the best says so."""
    series = {s: None for d in found for s in (d.series, d.best)}
    best = {d.guidance: d.best for d in found}
    by_place = {(d.series, d.guidance): d for d in found}

    def show(line: Series, g: float) -> Text:
        d = by_place.get((line, g))
        if d is None:
            return Text("best" if best.get(g) == line else "")
        shown = error_decimals(d.se) if d.se > 0 else decimals([d.value])
        sign = "+" if d.value > 0 else ""
        star = "*" if d.is_significant else ""
        return Text(f"{sign}{number(d.value, shown)}", star, error=f"± {number(d.se, shown)}")

    ordered = [s for s in data.series(column.dataset) if s in series]
    return tuple(Line(s.label, "", "", tuple(show(s, g) for g in guidances)) for s in ordered)


def headed(lines: Sequence[Line]) -> Iterator[tuple[str, Line]]:
    """Lines with the heading to stand before them, '' within a group and without one."""
    group = ""
    for line in lines:
        yield line.group if line.group != group else "", line
        group = line.group


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
    """Footnotes of one table: equal texts share a mark; general ones, in order, have none."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}
        self.general: dict[str, None] = {}

    def mark(self, text: str) -> str:
        count = len(self.marks)
        letters = "abcdefghijklmnopqrstuvwxyz"
        return self.marks.setdefault(text, letters[count % 26] * (count // 26 + 1))


def _text(cell: Cell, digits: int, count: int, notes: _Notes) -> Text:
    found = dict.fromkeys(notes.mark(_trouble(row)) for row in cell.troubles)
    marks = ",".join(found)
    if cell.values:
        text, error = with_error(cell.estimate, digits)
        return Text(text, marks, error=f"{error}{_behind(cell, count)}".strip())
    if not cell.troubles:
        return Text("")
    events = dict.fromkeys(row.status for row in cell.troubles)
    return Text("/".join(DASH if e == "skip" else e for e in events), marks)


def _minimum(cell: Cell, count: int, digits: int) -> Text:
    """The least value of so many seeds, with the decimals of the mean above it."""
    least = cell.minimum(count)
    if least is None:
        return Text("")
    se = cell.estimate.se
    return Text(number(least, error_decimals(se) if se else digits))


def _is_single(cell: Cell) -> bool:
    return len(cell.blocks) == 1 and cell.estimate.se is not None


def _behind(cell: Cell, count: int) -> str:
    """The number of seeds unless it is 1 or `count`, which a footnote states."""
    return f" ({len(cell.blocks)})" if len(cell.blocks) not in (1, count) else ""


def _trouble(row: Row) -> str:
    reason = " ".join(row.reason.split()) or "no reason given"
    return f"{'skipped' if row.status == 'skip' else row.status}: {reason}"


def _best(
    lines: Sequence[tuple[Series, Sequence[Cell]]],
    place: int,
    direction: str,
    digits: int,
    against: Mapping[Series, Difference],
) -> list[int]:
    """Return indices of the lines to print bold in a column.

    They are the best and those that do not differ significantly from it, by `against`; without
    differences, ties as displayed.
    """
    cells = [row[place] for _, row in lines]
    best = best_of(cells, direction)
    if best is None:
        return []
    top = number(cells[best].mean, digits)

    def ties(i: int) -> bool:
        if i == best:
            return True
        if lines[i][0] in against:
            return not against[lines[i][0]].is_significant
        in_running = bool(cells[i].values) and not cells[i].troubles
        return in_running and number(cells[i].mean, digits) == top

    return [i for i in range(len(lines)) if ties(i)]


def markdown(
    tables: Sequence[Table],
    head: Sequence[str],
    before: Mapping[str, Sequence[str]] = MappingProxyType({}),
    after: Mapping[Column, str] = MappingProxyType({}),
) -> str:
    """All tables as GitHub-flavoured Markdown below a title and general remarks.

    `before` is Markdown to open data sets with, `after` what stands behind a measure.
    """
    out = [f"# {md(head[0])}", *(md(line) for line in head[1:])]
    dataset = None
    for table in tables:
        if table.column.dataset != dataset:
            dataset = table.column.dataset
            out += [f"## {md(dataset)}", *before.get(dataset, ())]
        out.append(f"### {md(table.title)}")
        names = ["method", "NFE", "s/image", *(f"g = {g}" for g in table.guidance)]
        rows = [f"| {' | '.join(names)} |", "|" + " --- |" + " ---: |" * (len(names) - 1)]
        for heading, line in headed(table.lines):
            if heading:
                rows.append(f"| **{md(heading)}** |{' |' * (len(names) - 1)}")
            label = f"*{md(line.label)}*" if line.floor or line.aside else md(line.label)
            cells = [label, line.nfe, line.seconds, *(md_cell(c) for c in line.cells)]
            rows.append(f"| {' | '.join(cells)} |")
        out.append("\n".join(rows))
        if table.notes:
            notes = (f"<sup>{m}</sup> {md(t)}" if m else md(t) for m, t in table.notes)
            out.append("  \n".join(notes))
        if table.differences:
            out += _md_differences(table)
        out += [after[table.column]] if table.column in after else []
    return "\n\n".join(out) + "\n"


def _md_differences(table: Table) -> list[str]:
    """A section that opens when it is clicked."""
    names = ["method", *(f"g = {g}" for g in table.guidance)]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" + " ---: |" * (len(names) - 1)]
    for line in table.differences:
        cells = [md(line.label), *(md_cell(c) for c in line.cells)]
        rows.append(f"| {' | '.join(cells)} |")
    summary = f"<details><summary>{DIFFERENCES}: {escape(' '.join(table.title.split()))}</summary>"
    return [summary, "\n".join(rows), md(COMPARED), "</details>"]


def md(text: str) -> str:
    """Text as Markdown shows it verbatim; underscores inside a word need nothing."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"^([#>]|[-+](?= ))", r"\\\1", text)  # a heading, a quotation, a list
    return text.replace("&", "&amp;").replace("<", "&lt;")


def md_cell(cell: Text) -> str:
    """A cell as Markdown; its text is a number or a word of the report's own."""
    text = f"**{cell.text}**" if cell.bold else cell.text
    text = f"{text}<sup>{md(cell.marks)}</sup>" if cell.marks else text
    return f"{text} {cell.error}" if cell.error else text
