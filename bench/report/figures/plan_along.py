"""The figures of lines against another axis than guidance, in place of those against guidance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.report.figures.figures import Drawing, Plan
from bench.report.numbers.across import GUIDANCE, across
from bench.report.numbers.frame import Data
from bench.report.numbers.names import slug

AGAINST_GUIDANCE: tuple[Drawing, ...] = ("guidance_panels", "metric_curve", "rule_panels")


def drawn_against(data: Data, plans: Sequence[Plan], x: str) -> list[Plan]:
    """The plans, with those against guidance replaced if `x` is something else."""
    if x == GUIDANCE:
        return list(plans)
    kept = [plan for plan in plans if plan.drawing not in AGAINST_GUIDANCE]
    return [*kept, *_plan_along(data, x)]


def _plan_along(data: Data, x: str) -> Iterator[Plan]:
    for column in data.columns:
        axis = across(data, column, x)
        if axis is None or axis.measure == column or not column.about.is_headline:
            continue
        lines = tuple(
            s for s in data.series(column.dataset)
            if any(axis.at(data, s, g) is not None for g in data.running(column, s))
        )  # fmt: skip
        if lines:
            yield Plan(
                slug(column.dataset, column.metric, column.extractor, f"n{column.n}", "along", x),
                column.dataset,
                f"{column.title} on {column.dataset} against {axis.label}: one panel per line, in "
                "colour over all others (grey), its points joined in the order of guidance; "
                "dashed: the same method under CFG. Bars are 95% intervals, or the range of two "
                "seeds or runs.",
                "along",
                (data, column, lines, axis),
                column,
            )
