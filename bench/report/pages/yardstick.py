"""The section on the errors of rules and networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.experiment.formatting import decimals, number
from bench.report.document import (
    EVERYWHERE,
    Block,
    Figure,
    Form,
    Heading,
    Line,
    Table,
    Text,
    link,
    paragraph,
)
from bench.report.numbers.cells import Cell
from bench.report.numbers.yardstick import (
    Share,
    Yardstick,
    is_significant,
    named,
    partners,
    rule_of,
)
from bench.report.pages.cells import difference_text, value_text
from bench.report.pages.measures import titled
from bench.system.errors import counted

TITLE = "The rule's error and the network's"
TILT = "g-tilted density, exactly"
NOTES = (
    "Wasserstein-1 distance to the exact density of the class, in data units. Rule: the "
    "closed-form denoiser under the rule. Total: the trained network under the same rule, with "
    "as many steps. Network: total less rule at the same sampling seeds; if it is below 0, the "
    "error of the network offsets some of the error of the rule.",
    "Distances are of finite samples: samples of the exact density have a distance above 0 too.",
    "± is one standard error; for the network it is the paired jackknife's, for these weights, or "
    "over training runs. *: significant at 5%, not corrected for multiple comparisons.",
)
TILTED = (
    "The g-tilted density is p(x|c)^g p(x)^(1-g), normalised; its distance to the target is "
    "computed without samples. A rule that sampled it would have this error."
)


def yardstick_section(
    found: Sequence[Yardstick], figures: Mapping[str, Sequence[Figure]]
) -> Iterator[Block]:
    """The section with the figures of every data set; nothing without content."""
    if found or figures:
        yield Heading(TITLE, forms=EVERYWHERE if found else Form.PAGE)
    if found:
        yield paragraph("The same numbers: ", link("yardstick.csv"), ".")
    for dataset in dict.fromkeys([*(one.column.dataset for one in found), *figures]):
        yield from (yardstick_table(one) for one in found if one.column.dataset == dataset)
        yield from figures.get(dataset, ())


def yardstick_table(found: Yardstick) -> Table:
    """The table of a data set: for each rule its error, the total and the network's error."""
    values = [c.mean for (s, _), c in found.cells.items() if s in found.exact]
    digits = decimals(values + list(found.tilt.values()))
    lines = []
    steps = {s.steps for s in found.exact}
    for line in found.exact:
        name = rule_of(line) + (f", {counted(line.steps, 'step')}" if len(steps) > 1 else "")
        name += f" [{line.run}]" if line.run else ""
        own = (_value(found.cells.get((line, g)), digits) for g in found.guidance)
        lines.append(Line(f"{name}: rule", tuple(own)))
        for other in partners(line, [s.series for s in found.shares]):
            by_scale = {s.guidance: s for s in found.shares if (s.series, s.exact) == (other, line)}
            totals = (found.cells[other, g] if g in by_scale else None for g in found.guidance)
            shares = (_share(by_scale.get(g), digits) for g in found.guidance)
            lines += [
                Line(f"{name}: total, {named(other)}", tuple(_value(c, digits) for c in totals)),
                Line(f"{name}: network, {named(other)}", tuple(shares)),
            ]
    if found.tilt:
        exact = (found.tilt.get(g) for g in found.guidance)
        cells = tuple(Text("" if v is None else number(v, digits)) for v in exact)
        lines.append(Line(TILT, cells, "floor"))
    notes = [*(NOTES if found.shares else NOTES[:2]), *([TILTED] if found.tilt else [])]
    return Table(
        title=titled(f"{TITLE}: {found.column.dataset}, {found.column.title}", found.column),
        names=tuple(f"g = {g:g}" for g in found.guidance),
        lines=tuple(lines),
        notes=tuple(("", note) for note in notes),
        first="rule",
    )


def _value(cell: Cell | None, digits: int) -> Text:
    return Text("") if cell is None or not cell.found else value_text(cell.estimate, digits)


def _share(share: Share | None, digits: int) -> Text:
    if share is None:
        return Text("")
    found = share.network
    return difference_text(found.value, found.se, is_significant(found), digits)
