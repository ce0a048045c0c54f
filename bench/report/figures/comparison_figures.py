"""The figures that compare lines: fronts, and rules of one method side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from bench.experiment.rows import Density, Images, Points
from bench.report.figures.clouds import RULE_HEIGHT, clouds, densities
from bench.report.figures.figures import Plan, size_of
from bench.report.figures.grids import chosen_scales, rule_grid
from bench.report.figures.pareto_figures import cost_fronts, quality_front
from bench.report.figures.previews import previews
from bench.report.figures.rule_panels import rule_panels
from bench.report.numbers.comparison import cost_columns
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.hypervolume import precision_pairs
from bench.report.numbers.lines import ruled
from bench.report.numbers.names import slug
from bench.report.numbers.pareto import placed_cost

_FRONT = (
    "Every line at every guidance scale. Coloured: lines that are on the front (black), which no "
    "other point dominates; grey: all others. Filled markers are certain: no point of another line "
    "could dominate them with all values anywhere in their 95% intervals (bars); open ones are on "
    "the front by their means alone."
)


def plan_comparison(data: Data, compared: Collection[str]) -> Iterator[Plan]:
    """Fronts of the data sets that are `compared`; rules of methods that have some."""
    for dataset in data.datasets:
        if dataset in compared:
            yield from _fronts(data, dataset)
        for base, lines in ruled(data, dataset).items():
            yield from _panels(data, base, lines)
            yield from _samples(data, base, lines)


def _fronts(data: Data, dataset: str) -> Iterator[Plan]:
    for precision, recall in precision_pairs(data, dataset):
        parts = (precision.metric, recall.metric, precision.extractor, size_of(data, precision))
        yield Plan(
            slug(dataset, "front", *parts),
            dataset,
            f"{precision.label} against {recall.label}: up and right is better. {_FRONT}",
            lambda p=precision, r=recall: quality_front(data, p, r),  # type: ignore[misc]
            first=True,
        )
    for column in cost_columns(data, dataset):
        if not placed_cost(data, column, "nfe"):
            continue
        yield Plan(
            slug(dataset, "front", column.metric, column.extractor, size_of(data, column), "cost"),
            dataset,
            f"{column.title} against network evaluations and seconds per image, both as measured "
            f"and on logarithmic axes: costs count as exact, and seconds are those of the machine "
            f"that sampled. {_FRONT}",
            lambda c=column: cost_fronts(data, c),  # type: ignore[misc]
            first=True,
        )


def _panels(data: Data, base: Series, lines: tuple[Series, ...]) -> Iterator[Plan]:
    dataset = base.dataset
    scales = data.guidances(dataset)
    for column in data.columns:
        if column.dataset != dataset or column.about.standing == "listed":
            continue
        if any(data.cell(column, s, g).found for s in lines for g in scales):
            parts = (column.metric, column.extractor, size_of(data, column))
            yield Plan(
                slug(dataset, *parts, "rules", base.method, base.run, str(base.steps)),
                dataset,
                f"{column.title} of {base.label} under every guidance rule against guidance g "
                "(1 = off, where no rule acts). One panel a rule, all on the same axes: the rule "
                "in colour with its 95% interval, the other rules in grey; dashed is plain CFG"
                + (", dotted real against real." if data.floor(column).found else "."),
                lambda c=column: rule_panels(data, c, base),  # type: ignore[misc]
                column,
            )


def _samples(data: Data, base: Series, lines: tuple[Series, ...]) -> Iterator[Plan]:
    every = (base, *lines)
    parts = ("rules", base.method, base.run, str(base.steps))
    if any(previews(data, s, Images) for s in lines):
        yield Plan(
            slug(base.dataset, "samples", *parts),
            base.dataset,
            f"Samples of {base.label} under every guidance rule, one row a rule: the same noise "
            "and classes in every row and block. Where a block is grey there are no samples; "
            "pixels are enlarged without smoothing.",
            lambda: rule_grid(data, base),
        )
    for kind, name, draw in ((Density, "densities", densities), (Points, "points", clouds)):
        found = {s: previews(data, s, kind) for s in every}
        if any(found[s] for s in lines):
            scales = chosen_scales(sorted({g for some in found.values() for g in some}))
            yield Plan(
                slug(base.dataset, name, *parts),
                base.dataset,
                f"Samples of {base.label} under every guidance rule, one row a rule, as in the "
                "figure of methods.",
                lambda draw=draw, scales=scales: draw(  # type: ignore[misc]
                    data, base.dataset, every, scales, RULE_HEIGHT
                ),
            )
