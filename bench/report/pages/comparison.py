"""The comparison of the lines of a data set: a paragraph, rankings and hypervolumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bench.experiment.formatting import decimals, duration
from bench.report.document import (
    DASH,
    OF_DATASET,
    Block,
    Details,
    Form,
    Line,
    Paragraph,
    Table,
    Text,
    link,
    paragraph,
)
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import Comparison, comparison_frames
from bench.report.numbers.frame import Data
from bench.report.numbers.matched import Matched
from bench.report.numbers.names import numbers
from bench.report.numbers.ranking import Place, Ranking
from bench.report.numbers.verdict import verdict
from bench.report.pages.cells import difference_text, value_text
from bench.report.pages.matched import matched_section
from bench.report.pages.measures import measure_title, titled

RANKING = "Ranking of lines"
GROUPS = (
    "Group 1 has the best line and all lines that do not differ significantly from it at 5%, group "
    "2 the best of the others and all that do not differ significantly from that one, and so on. p "
    "is adjusted for the number of pairs of lines (Holm), since the same values choose the leader."
)
PAIRED = (
    "Differences are paired: at the same sampling seeds, hence the same noise and labels, with the "
    "jackknife standard error, for these weights."
)
UNPAIRED = "Values without common replicates are compared as if they were independent."
OPTIMISTIC = (
    "The same values choose the best scale and are reported: the best of several, hence optimistic."
)
HELD_OUT = (
    "The first half of the sampling seeds chooses the best scale; the value is from the other half."
)
AREA = (
    "Area from (0, 0) of the precision and recall reached at any guidance scale, at most 1. More "
    "scales give a line more to choose from, and a maximum over noisy values is optimistic."
)
UNTESTED = "Lines without a group have no error to compare them by."
_NONE = (Text(DASH), Text(DASH), Text(DASH))


def opening(
    data: Data, found: Mapping[str, Comparison], matched: Mapping[str, Matched], dataset: str
) -> Iterator[Block]:
    """The verdict on a data set, first at equal outcome, its files, and its hypervolumes."""
    if dataset in matched:
        yield from matched_section(matched[dataset])
    if dataset not in found:
        return
    for statement in verdict(data, found[dataset]):
        yield Paragraph((statement,), OF_DATASET | Form.MARKDOWN, "verdict")
    files = [name for name, frame in comparison_frames(found).items() if frame is not None]
    links = [part for name in files for part in (", ", link(name))][1:]
    yield paragraph("All lines compared: ", *links, ".")
    for table in area_tables(found[dataset]):
        yield folded(table, Form.PAGE)
        yield replace(table, forms=Form.DATASET)


def tex_tables(found: Mapping[str, Comparison]) -> Iterator[Block]:
    """All hypervolumes and rankings for TeX, where they follow the tables of measures."""
    for comparison in found.values():
        rankings = map(ranking_table, comparison.rankings.values())
        for table in (*area_tables(comparison), *rankings):
            yield replace(table, forms=Form.TEX)


def folded(table: Table, forms: Form = OF_DATASET) -> Details:
    """A table that opens when its title is clicked."""
    return Details(table.title, (replace(table, title=""),), forms)


def ranking_table(ranking: Ranking) -> Table:
    """The lines of a measure by their best operating point, and their mean next to it."""
    means = {p.series: p for p in ranking.mean}
    marks = {
        s: "" if point.scales == 1 else "h" if point.held_out else "o"
        for s, point in ranking.points.items()
    }
    mixed = len(set(marks.values()) - {""}) > 1
    digits = _digits(*ranking.best, *ranking.mean)
    lines = []
    for place in ranking.best:
        point = ranking.points[place.series]
        mean = means.get(place.series)
        best = _value(place, digits)
        cells = (
            Text(str(place.rank)),
            _group(place),
            Text(f"{point.guidance:g}"),
            replace(best, marks=marks[place.series]) if mixed else best,
            Text(str(point.nfe)),
            Text(duration(point.seconds) if point.seconds > 0 else DASH),
            *_less_leader(place),
            *((Text(str(mean.rank)), _group(mean), _value(mean, digits)) if mean else _NONE),
        )
        lines.append(Line(place.series.label, cells))
    names = (
        *("rank", "group", "best g", "value", "NFE", "time/image", "minus leader", "p (Holm)"),
        *("rank by mean", "group by mean", "mean"),
    )
    notes = [
        (mark if mixed else "", text)
        for mark, text in (("o", OPTIMISTIC), ("h", HELD_OUT))
        if mark in marks.values()
    ]
    notes += [("", GROUPS), ("", PAIRED if ranking.is_paired else f"{PAIRED} {UNPAIRED}")]
    if any(p.group == 0 for p in (*ranking.best, *ranking.mean)):
        notes.append(("", UNTESTED))
    if ranking.mean:
        over = f"g = {numbers(ranking.scales)}"
        notes.append(("", f"Mean: over {over}, for lines with a value at all of these."))
    title = f"{RANKING}: {measure_title(ranking.column)}"
    return Table(title, names, tuple(lines), tuple(notes), first="line")


def area_tables(comparison: Comparison) -> list[Table]:
    """The tables of hypervolumes that have lines to compare."""
    return [
        _area_table(p, r, places) for (p, r), places in comparison.areas.items() if len(places) > 1
    ]


def _area_table(precision: Column, recall: Column, places: tuple[Place, ...]) -> Table:
    digits = _digits(*places)
    lines = tuple(
        Line(
            p.series.label,
            (
                Text(str(p.rank)),
                _group(p),
                Text(str(len(p.entry.sides[0]))),
                _value(p, digits),
                *_less_leader(p),
            ),
        )
        for p in places
    )
    methods = sorted({p.entry.estimate.se_method for p in places} - {""})
    notes = [
        AREA,
        *([f"± is one standard error ({'; '.join(methods)})."] if methods else []),
        GROUPS,
        PAIRED if all(p.against is None or p.against.paired for p in places) else UNPAIRED,
    ]
    title = titled(f"Hypervolume: {precision.title} and {recall.title} ↑", precision)
    names = ("rank", "group", "scales", "hypervolume", "minus leader", "p (Holm)")
    return Table(title, names, lines, tuple(("", text) for text in notes), first="line")


def _digits(*places: Place) -> int:
    return decimals([p.entry.estimate.value for p in places])


def _group(place: Place) -> Text:
    return Text(str(place.group) if place.group else DASH)


def _value(place: Place, digits: int) -> Text:
    """The value of a line, bold in the first group."""
    return value_text(place.entry.estimate, digits, bold=place.group == 1)


def _less_leader(place: Place) -> tuple[Text, Text]:
    """The difference of a line from the leader, and its p."""
    leads = place.rank == 1
    c = place.against
    less = Text("leader" if leads else DASH)
    if c is not None:
        less = difference_text(c.value, c.se, place.is_worse)
    if place.p is None:
        return less, Text("" if leads else DASH)
    return less, Text("< 0.001" if place.p < 0.001 else f"{place.p:.3f}")
