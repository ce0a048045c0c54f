"""The tables of one measure of a data set: methods by guidance, and differences from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from bench.experiment.formatting import decimals, duration, error_decimals, number
from bench.experiment.rows import ALONE
from bench.report.document import DASH, OF_DATASET, Form, Line, Table, Text
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR_LABEL
from bench.report.numbers.pairs import Difference, best_of, differences
from bench.report.pages.cells import Footnotes, difference_text, span, value_text
from metrics.about import About, ErrorOf

MINIMUM = (
    "EDM and its successors report the minimum over sampling seeds of one checkpoint. It is below "
    "the mean only by chance and is shown for comparison with their numbers."
)
BOLD = (
    "Bold: the best of a column and every method whose paired difference from it is not "
    "significant at 5%."
)
COUNTED: dict[ErrorOf, str] = {
    "given reference": "conditional on the reference set",
    "generated": "counting the sampling of the generated set",
    "real": "counting the sampling of the real set, conditional on the generated samples",
    "both": "counting the sampling of both sets",
}
"""What a standard error covers."""
LOADED = (
    "Timed while other programs used the processor, which gave sampling less than "
    f"{ALONE:.0%} of the time: compare network evaluations. Such times compare no lines here."
)
ENDS = "≤ and ≥ give the end of the 95% interval of a share of 0 or 1."

FEWEST_SEEDS = 3
"""Of one checkpoint, to show the minimum over them: EDM's number."""


def measure_title(column: Column) -> str:
    """Name of the measure with its extractor, n and arrow, and unusual sampling of all lines."""
    return titled(f"{column.title} {column.arrow}".strip(), column)


def titled(text: str, column: Column) -> str:
    """A title with the unusual sampling that all lines share, such as "FD @50 (sde)"."""
    return f"{text} ({column.sampling})" if column.sampling else text


def measure_table(data: Data, column: Column) -> Table:
    """The table of one measure: the best of every guidance scale in bold, the floor last."""
    guidances = data.guidances(column.dataset)
    lines = [(s, [data.cell(column, s, g) for g in guidances]) for s in data.series(column.dataset)]
    # The metric does not apply to a line without any value or event.
    lines = [(s, cells) for s, cells in lines if any(c.values or c.troubles for c in cells)]
    floor = data.floor(column)
    valued = [c for c in (floor, *chain.from_iterable(cells for _, cells in lines)) if c.values]
    digits = decimals([v for c in valued for v in c.values])
    notes = Footnotes()
    counts = {len(c.blocks) for c in valued if len(c.blocks) > 1 or c.estimate.se is not None}
    # Single runs among others have no number of blocks; the floor is known by its name.
    if not any(
        len(c.blocks) == 1 and c.estimate.se is not None for _, cells in lines for c in cells
    ):
        counts -= {1}
    count = counts.pop() if len(counts) == 1 else 0
    texts = [[_text(cell, digits, count, notes) for cell in cells] for _, cells in lines]
    found = differences(data, column)
    for j, g in enumerate(guidances):
        against = {d.series: d for d in found if d.guidance == g}
        for i in _best(lines, j, column.direction, digits, against):
            texts[i][j] = replace(texts[i][j], bold=True)
    # All minima are over the same number of seeds: the lowest.
    seeds = [c.seeds for _, cells in lines for c in cells if c.seeds >= FEWEST_SEEDS]
    done, minima = [], False
    for (series, cells), shown in zip(lines, texts, strict=True):
        group = f"{series.base.label}: guidance rules" if series.rule else ""
        done.append(Line(series.label, (*_costs(data, series, notes), *shown), group=group))
        if column.about.minimum and any(c.seeds >= FEWEST_SEEDS for c in cells):
            minima = True
            label = f"{series.label}: min of {min(seeds)} seeds"
            least = (_minimum(cell, min(seeds), digits) for cell in cells)
            done.append(Line(label, (Text(""), Text(""), *least), "aside", group))
    if floor.values:
        real = _text(floor, digits, count, notes)
        repeated = (Text(DASH), Text(DASH), *[real] * len(guidances))
        done.append(Line(FLOOR_LABEL, repeated, "floor"))
    general = [
        *_error_notes(column.about, valued, count),
        *([MINIMUM] if minima else []),
        *([BOLD] if found else []),
    ]
    if floor.values and guidances:
        general.append("The floor does not depend on guidance; it is repeated in every column.")
    general += [data.notes[column]] if column in data.notes else []
    title = measure_title(column)
    return Table(
        title=title,
        names=("NFE", "time/image", *(f"g = {g:g}" for g in guidances)),
        lines=tuple(done),
        notes=(*notes.notes, *(("", text) for text in general)),
        caption=f"{column.dataset}: {title}",
        forms=OF_DATASET | Form.TEX,
    )


def difference_table(data: Data, column: Column, found: Sequence[Difference]) -> Table:
    """The methods less the best one at each guidance scale."""
    guidances = data.guidances(column.dataset)
    best = {d.guidance: d.best for d in found}
    by_place = {(d.series, d.guidance): d for d in found}

    def show(line: Series, g: float) -> Text:
        d = by_place.get((line, g))
        if d is None:
            return Text("best" if best.get(g) == line else "")
        return difference_text(d.value, d.se, d.is_significant)

    compared = {s for d in found for s in (d.series, d.best)}
    return Table(
        title="",
        names=tuple(f"g = {g:g}" for g in guidances),
        lines=tuple(
            Line(s.label, tuple(show(s, g) for g in guidances))
            for s in data.series(column.dataset)
            if s in compared
        ),
    )


def _error_notes(about: About, cells: Sequence[Cell], count: int) -> list[str]:
    """Footnotes on the errors of a table; `count` is the common number of blocks, else 0."""
    notes = []
    for unit in sorted({c.unit for c in cells if len(c.blocks) > 1}):
        over = f"{count} {unit}" if count > 1 else f"{unit} (their number is in brackets)"
        notes.append(
            f"± is the standard error over {over}: standard deviation / sqrt(number). 95% "
            "intervals are by Student's t."
        )
    single = [c.estimate for c in cells if len(c.blocks) == 1]
    for method in sorted({e.se_method for e in single if e.se is not None}):
        notes.append(
            f"± of a single run is its standard error ({method}), {COUNTED[about.error_of]}."
        )
    if any(e.se == 0.0 and e.low != e.high for e in single):
        notes.append(ENDS)
    return notes


def _costs(data: Data, series: Series, notes: Footnotes) -> tuple[Text, Text]:
    """NFE and seconds per image of a line; ranges if they depend on guidance."""
    rows = [row for row in data.rows_of(series) if row.status == "ok"]
    nfe = sorted({row.nfe for row in rows})
    # 0.0 means that nothing was timed.
    timed = [row for row in rows if row.seconds_per_image > 0]
    seconds = sorted(row.seconds_per_image for row in timed)
    mark = notes.mark(LOADED) if any(row.under_load for row in timed) else ""
    return Text(span([str(v) for v in nfe])), Text(span([duration(v) for v in seconds]), mark)


def _text(cell: Cell, digits: int, count: int, notes: Footnotes) -> Text:
    """A cell with its number of blocks, unless that is 1 or `count`, which is in a footnote."""
    events = notes.events(cell.troubles)
    if not cell.values:
        return events
    text = value_text(cell.estimate, digits, marks=events.marks)
    seeds = f" ({len(cell.blocks)})" if len(cell.blocks) not in (1, count) else ""
    return replace(text, error=f"{text.error}{seeds}".strip())


def _minimum(cell: Cell, count: int, digits: int) -> Text:
    """The minimum over `count` seeds, with the decimals of the mean above it."""
    least = cell.minimum(count)
    if least is None:
        return Text("")
    se = cell.estimate.se
    return Text(number(least, error_decimals(se) if se else digits))


def _best(
    lines: Sequence[tuple[Series, Sequence[Cell]]],
    place: int,
    direction: str,
    digits: int,
    against: Mapping[Series, Difference],
) -> list[int]:
    """Indices of the bold lines in a column.

    These are the best line and those that do not differ significantly from it, by `against`, or
    without differences, that show the same number.
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
