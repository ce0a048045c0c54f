"""The tables that compare lines: rankings and hypervolumes."""

from __future__ import annotations

from bench.experiment.formatting import decimals, error_decimals, number, with_error
from bench.report.numbers.comparison import Comparison
from bench.report.numbers.frame import Column
from bench.report.numbers.ranking import Place, Ranking
from bench.report.numbers.words import numbers
from bench.report.pages.sheets import Sheet, SheetLine
from bench.report.pages.tables import DASH, Text

RANKING = "Ranking of lines"
GROUPS = (
    "Group: 1 holds the best line and all that cannot be told from it at 5%, 2 the best of the "
    "others and all that cannot be told from that one, and so on; p is adjusted for the number of "
    "pairs of lines (Holm), since the same values choose the leader."
)
PAIRED = (
    "Differences are paired: of the same sampling seeds, hence noise and labels, with the "
    "jackknife's standard error, for these weights."
)
UNPAIRED = (
    "Where values have no replicates in common, differences count as those of independent values."
)
OPTIMISTIC = (
    "The best scale is chosen by the values that are reported: the best of several, optimistic."
)
HELD_OUT = (
    "The best scale is chosen by the first half of the sampling seeds; the value is that of the "
    "other half."
)
UNTESTED = "Lines without a group have no error to compare them by."


def ranking_sheet(ranking: Ranking) -> Sheet:
    """The lines of a measure by their best operating point, and beside it by their mean."""
    column = ranking.column
    means = {p.series: p for p in ranking.mean}
    # What the first half of the seeds chooses from is what is optimistic, or not.
    marks = {
        s: "" if point.scales == 1 else "h" if point.held_out else "o"
        for s, point in ranking.points.items()
    }
    mixed = len(set(marks.values()) - {""}) > 1
    digits = decimals([p.entry.estimate.value for p in (*ranking.best, *ranking.mean)])
    lines = []
    for place in ranking.best:
        point = ranking.points[place.series]
        mean = means.get(place.series)
        value = _value(place, digits)
        lines.append(
            SheetLine(
                place.series.label,
                (
                    Text(str(place.rank)),
                    _group(place),
                    Text(f"{point.guidance:g}"),
                    Text(value.text, marks[place.series] if mixed else "", place.group == 1,
                         value.error),
                    Text(str(point.nfe)),
                    Text(f"{point.seconds:.2g}" if point.seconds > 0 else DASH),
                    _behind(place),
                    Text(_p(place)),
                    Text(str(mean.rank) if mean else DASH),
                    _group(mean) if mean else Text(DASH),
                    _value(mean, digits, mean.group == 1) if mean else Text(DASH),
                ),
            )
        )  # fmt: skip
    names = (
        *("rank", "group", "best g", "value", "NFE", "s/image", "less the leader", "p (Holm)"),
        *("rank by mean", "group by mean", "mean"),
    )
    notes = []
    if "o" in marks.values():
        notes.append(("o" if mixed else "", OPTIMISTIC))
    if "h" in marks.values():
        notes.append(("h" if mixed else "", HELD_OUT))
    notes += [("", text) for text in (GROUPS, *_errors(ranking))]
    if ranking.mean:
        notes.append(
            ("", f"Mean: over g = {numbers(ranking.scales)}, for lines that have a value at all of "
             "these.")
        )  # fmt: skip
    title = f"{RANKING}: {column.title} {column.arrow}".strip()
    return Sheet(column.dataset, title, "line", names, tuple(lines), tuple(notes))


def area_sheet(precision: Column, recall: Column, places: tuple[Place, ...]) -> Sheet:
    """The hypervolume of every line."""
    digits = decimals([p.entry.estimate.value for p in places])
    lines = tuple(
        SheetLine(
            p.series.label,
            (
                Text(str(p.rank)),
                _group(p),
                Text(str(len(p.entry.sides[0]))),
                _value(p, digits, p.group == 1),
                _behind(p),
                Text(_p(p)),
            ),
        )
        for p in places
    )
    methods = sorted({p.entry.estimate.se_method for p in places} - {""})
    notes = [
        "Area of precision and recall that is reached at some guidance scale, from (0, 0); 1 is "
        "the most. A line with more scales has more to choose from, and a maximum over noisy "
        "values is optimistic.",
        *([f"± is one standard error ({'; '.join(methods)})."] if methods else []),
        GROUPS,
        PAIRED if all(p.against is None or p.against.paired for p in places) else UNPAIRED,
    ]
    title = f"Hypervolume: {precision.title} and {recall.title} ↑"
    names = ("rank", "group", "scales", "hypervolume", "less the leader", "p (Holm)")
    notes_ = tuple(("", text) for text in notes)
    return Sheet(precision.dataset, title, "line", names, lines, notes_)


def area_sheets(comparison: Comparison) -> list[Sheet]:
    """The tables of hypervolumes that have lines."""
    return [
        area_sheet(p, r, places) for (p, r), places in comparison.areas.items() if len(places) > 1
    ]


def _errors(ranking: Ranking) -> list[str]:
    places = (*ranking.best, *ranking.mean)
    lines = [PAIRED if ranking.is_paired else f"{PAIRED} {UNPAIRED}"]
    return [*lines, UNTESTED] if any(p.group == 0 for p in places) else lines


def _group(place: Place) -> Text:
    return Text(str(place.group) if place.group else DASH)


def _value(place: Place, digits: int, bold: bool = False) -> Text:
    text, error = with_error(place.entry.estimate, digits)
    return Text(text, bold=bold, error=error)


def _behind(place: Place) -> Text:
    c = place.against
    if c is None:
        return Text("leader" if place.rank == 1 else DASH)
    shown = error_decimals(c.se) if c.se > 0 else decimals([c.value])
    sign = "+" if c.value > 0 else ""
    star = "*" if place.is_behind else ""
    return Text(f"{sign}{number(c.value, shown)}", star, error=f"± {number(c.se, shown)}")


def _p(place: Place) -> str:
    if place.p is None:
        return "" if place.rank == 1 else DASH
    return "< 0.001" if place.p < 0.001 else f"{place.p:.3f}"
