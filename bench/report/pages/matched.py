"""Tables of lines against CFG at equal outcome."""

from __future__ import annotations

from collections.abc import Iterator

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
)
from bench.report.numbers.columns import Column
from bench.report.numbers.matched import Duel, Equal, Kind, Matched, Standing
from bench.report.numbers.matched_verdict import matched_verdict
from bench.report.numbers.ranking import LEVEL
from bench.report.pages.cells import difference_text
from bench.report.pages.measures import titled

WORDS: dict[Kind, str] = {
    "better": "better than CFG",
    "worse": "worse than CFG",
    "both": "better and worse",
    "same": "as CFG at g*",
    "idle": "hardly guides",
    "none": "no equal outcome",
}
COSTS: dict[Equal, str] = {"nfe": "NFE", "seconds": "seconds"}
NOTES = (
    "Every line at the scale g at which it does best against CFG, or worst for a line that is "
    "never better. g*: the scale at which CFG has the same outcome, with its 95% interval: of the "
    "paired jackknife and of the interpolation between the scales of CFG. The differences are the "
    "line less CFG at g*, ± their standard error, which includes that of g*. *: significant at 5%; "
    "p is adjusted for all lines and scales (Holm).",
    "(i): the value of CFG is interpolated, so the result is provisional: bench sweep --matched "
    "runs CFG at g*.",
    "Better, worse: scales at which the line differs significantly, of all its scales. Lines "
    "without an equal outcome lie on a plateau of CFG's curve, beyond it, below its value without "
    "guidance, or fit several scales.",
)


def matched_section(matched: Matched) -> Iterator[Block]:
    """The statement, and the tables by every outcome at equal steps, evaluations and seconds."""
    forms = OF_DATASET | Form.MARKDOWN
    yield Paragraph((matched_verdict(matched),), forms, "verdict")
    for outcome in matched.outcomes:
        table = matched_table(matched, outcome)
        whole = OF_DATASET if outcome == matched.chosen else Form.PAGE
        yield Details(table.title, (table, Paragraph((link("matched.csv"),), Form.PAGE)), whole)


def matched_table(matched: Matched, outcome: Column) -> Table:
    """Every line against CFG at equal values of an outcome."""
    judged = [c for c in matched.judged if any(c in d.gaps for d in matched.of(outcome))]
    leading = matched.leading if matched.leading in judged else (judged or [matched.leading])[0]
    costs = {e: f"{leading.label} at equal {name}" for e, name in COSTS.items()
             if matched.of(outcome, e)}  # fmt: skip
    found = matched.standings(outcome, leading)
    order: tuple[Kind, ...] = ("better", "both", "same", "idle", "worse", "none")
    lines = [
        _line(matched, standing, leading, judged, list(costs))
        for standing in sorted(found.values(), key=lambda s: (order.index(s.kind), s.p or 0.0))
    ]
    names = (
        *("verdict", "g", "g* of CFG", *(f"{c.label} {c.arrow}".strip() for c in judged)),
        *("p (Holm)", "better", "worse", "NFE", "NFE of CFG", *costs.values()),
    )
    title = titled(f"Against CFG at equal {outcome.title}", outcome)
    notes = tuple(("", note) for note in NOTES)
    return Table(title, names, tuple(lines), notes, first="line")


def _line(
    matched: Matched, standing: Standing, leading: Column, judged: list[Column], costs: list[Equal]
) -> Line:
    duel = standing.best
    if duel is None:
        none = tuple(Text(DASH) for _ in range(7 + len(judged) + len(costs)))
        return Line(standing.series.label, (Text(WORDS["none"]), *none))
    match, sure = duel.match, standing.p is not None and standing.p < LEVEL
    mark = "" if match.measured else " (i)"
    interval = f"[{match.low:.2f}, {match.high:.2f}]"
    p = standing.p
    cells = (
        Text(WORDS[standing.kind]),
        Text(f"{duel.guidance:g}"),
        Text(f"{match.scale:.2f}{mark}", error=interval),
        *(_gap(duel, column, sure and column == leading) for column in judged),
        Text(DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"),
        *(Text(f"{count}/{standing.of}") for count in (standing.better, standing.worse)),
        *(Text(str(nfe)) for nfe in duel.nfe),
        *(_at_cost(matched, duel, leading, equal) for equal in costs),
    )
    return Line(standing.series.label, cells)


def _at_cost(matched: Matched, duel: Duel, leading: Column, equal: Equal) -> Text:
    """The difference from CFG at the steps of equal cost."""
    for other in matched.of(duel.outcome, equal):
        if (other.series, other.guidance) == (duel.series, duel.guidance):
            return _gap(other, leading, False)
    return Text(DASH)


def _gap(duel: Duel, column: Column, star: bool) -> Text:
    gap = duel.gaps.get(column)
    return Text(DASH) if gap is None else difference_text(gap.value, gap.se, star)
