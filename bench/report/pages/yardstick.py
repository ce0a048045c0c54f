"""The section on the rule's error and the network's."""

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

TITLE = "The rule's error and the network's"
TILT = "g-tilted density, exactly"
NOTES = (
    "Wasserstein-1 distance to the exact density of the class, in data units. Rule: of the "
    "closed-form denoiser under the rule. Total: of the trained network under the same rule, with "
    "as many steps. Network: the total less the rule's error, at the same sampling seeds; below 0 "
    "the network's error makes up for some of the rule's.",
    "Every distance is of a finite sample, and is not 0 for samples of the density itself.",
    "± is one standard error; of the network's share it is the paired jackknife's, for these "
    "weights, or that over training runs. *: significant at 5%, not corrected for many "
    "comparisons.",
)
TILTED = (
    "The g-tilted density is p(x|c)^g p(x)^(1-g), normalised: its own distance to the target, "
    "without samples. A rule that sampled it would have this error."
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
    """The table of a data set: rule by rule its own error, the total and the network's share."""
    values = [c.mean for (s, _), c in found.cells.items() if s in found.exact]
    digits = decimals(values + list(found.tilt.values()))
    lines = []
    steps = {s.steps for s in found.exact}
    for line in found.exact:
        name = rule_of(line) + (f", {line.steps} steps" if len(steps) > 1 else "")
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
        title=f"{TITLE}: {found.column.dataset}, {found.column.title}",
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
