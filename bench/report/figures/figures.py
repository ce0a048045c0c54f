"""The list of figures of a report, each with its caption and how to draw it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.experiment.rows import Density, Images, Points, Preview
from bench.report.numbers.across import GUIDANCE, across
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import cost_columns
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.inversions import Inversions
from bench.report.numbers.names import FLOOR, slug
from bench.report.numbers.pareto import placed_cost, precision_pairs
from bench.report.numbers.previews import chosen_scales, previews
from bench.report.numbers.published import Published, curves
from bench.report.numbers.yardstick import EXACT

if TYPE_CHECKING:  # it takes a second to import, and most reports draw nothing anew
    from matplotlib.figure import Figure

Drawing = Literal[
    "along", "clouds", "cost_fronts", "densities", "edit_grid", "guidance_panels", "line_grid",
    "metric_curve", "modes", "precision_recall", "quality_front", "rule_panels", "sample_grid",
    "yardstick_densities", "yardstick_planes",
]  # fmt: skip
"""A function of `bench.report.figures.drawings`."""
AGAINST_GUIDANCE: tuple[Drawing, ...] = ("guidance_panels", "metric_curve", "rule_panels")
RULE_HEIGHT = 0.9
"""Inches of a row in figures with one row per rule, which is its name."""
ENLARGED = "pixels are enlarged without smoothing."
ROWS = (
    "One row per method and number of steps, one column per guidance scale g (1 = off); the lowest "
    "seed is shown."
)
POINTS = (
    "Samples in data units, one colour and marker per class, with the circles of one (solid) and "
    "three (dashed) standard deviations around the exact modes."
)
FRONT = (
    "Every line at every guidance scale. Coloured: lines with a point on the front (black), which "
    "no other point dominates; grey: all others. Filled markers are certain: no point of another "
    "line could dominate them for any values within the 95% intervals (bars). Open markers are on "
    "the front by their means only."
)


@dataclass(frozen=True)
class Plan:
    """A figure to draw: the stem of its files, its caption and its subject."""

    name: str
    dataset: str
    caption: str
    drawing: Drawing
    inputs: tuple[object, ...]
    """The arguments of the drawing, which are all that the figure depends on."""
    column: Column | None = None
    first: bool = False
    """Whether it comes before the measures of its data set."""
    every: bool = False
    """Whether it is drawn only if all figures are asked for."""

    def draw(self) -> Figure:
        """The figure."""
        from bench.report.figures.drawings import DRAWINGS

        return DRAWINGS[self.drawing](*self.inputs)


def plan_figures(data: Data, published: tuple[Published, ...]) -> Iterator[Plan]:
    """The figures of methods: every measure, precision with recall, and samples."""
    for column in data.columns:
        cells = [cell for cell in _plain_cells(data, column) if cell.found]
        if cells:
            yield Plan(
                slug(column.dataset, *_parts(data, column)),
                column.dataset,
                _curve_caption(data, column, cells) + grey_caption(column, published),
                "metric_curve",
                (data, column, published),
                column,
                every=True,
            )
    for dataset in data.datasets:
        for precision, recall in precision_pairs(data, dataset):
            bands = any(cell.band for cell in _plain_cells(data, precision))
            star = data.floor(recall).found and data.floor(precision).found
            yield Plan(
                slug(dataset, precision.metric, *_parts(data, precision, recall)),
                dataset,
                f"{precision.label} (how many samples look real) against {recall.label} (how much "
                "of the real set is covered) along guidance, both without unit; up and right is "
                "better. One path per method and number of steps, its ends marked with their g"
                + ("; bars are 95% intervals, or the range of two seeds or runs" if bands else "")
                + ("; the star is real against real." if star else ".")
                + grey_caption(precision, published),
                "precision_recall",
                (data, precision, recall, published),
                every=True,
            )
        yield from _samples(data, dataset)


def _parts(data: Data, column: Column, named: Column | None = None) -> tuple[str, str, str]:
    """Parts of a file's name: metric (of `named`), extractor, and n if there are several."""
    sizes = {c.n for c in data.columns if c.key[:3] == column.key[:3]}
    size = f"n{column.n}" if len(sizes) > 1 else ""
    return (named or column).metric, column.extractor, size


def _plain_cells(data: Data, column: Column) -> list[Cell]:
    """The cells in the figures of methods."""
    lines, scales = data.plain(column.dataset), data.guidances(column.dataset)
    return [data.cell(column, s, g) for s in lines for g in scales]


def _samples(data: Data, dataset: str) -> Iterator[Plan]:
    """Densities, point clouds and grids of stored samples, without rules."""
    lines = data.plain(dataset)
    if any(previews(data, s, Density) for s in lines):
        yield Plan(
            slug(dataset, "densities"),
            dataset,
            "Histograms of samples by class, in data units, against the exact density of the class "
            f"(black). {ROWS}",
            "densities",
            (data, dataset, lines),
            every=True,
        )
    if any(previews(data, s, Points) for s in lines):
        yield Plan(
            slug(dataset, "points"),
            dataset,
            f"{POINTS} {ROWS}",
            "clouds",
            (data, dataset, lines),
            every=True,
        )
    floor = {data.series_of(r) for r in data.rows if r.dataset == dataset and r.method == FLOOR}
    for line in (*lines, *sorted(floor, key=lambda s: s.run)):
        if previews(data, line, Images):
            yield Plan(
                slug(
                    dataset,
                    "samples",
                    line.method,
                    line.run,
                    str(line.steps or ""),
                    line.sampling,
                    line.rule,
                ),
                dataset,
                "Real samples that are not in the reference set, with their classes on top."
                if line.method == FLOOR
                else f"Samples of {line.label}: one row per guidance scale g (1 = off), one column "
                "per sample index, which is the same noise and class in every row and for every "
                "method. The class asked for is on top; the lowest seed is shown; " + ENLARGED,
                "sample_grid",
                (data, line),
                every=True,
            )


def _curve_caption(data: Data, column: Column, cells: Sequence[Cell]) -> str:
    return (
        f"{column.title} on {column.dataset} against guidance g (1 = off); {better(column)}. One "
        f"line per method and number of steps{uncertainty_caption(cells)}"
        + floor_caption(data.floor(column).found)
    )


def better(column: Column) -> str:
    """Which direction of a measure is better."""
    direction = "neither direction" if column.direction == "none" else column.direction
    return f"{direction} is better"


def uncertainty_caption(cells: Sequence[Cell]) -> str:
    """The end of a sentence on the lines of a figure."""
    several = {c.unit for c in cells if len(c.blocks) > 1}
    mean = f", the mean over {' and '.join(sorted(several))} (thin lines)" if several else ""
    shaded = any(len(c.blocks) == 1 and c.band for c in cells)
    return mean + ("; shaded: the 95% interval of a single run." if shaded else ".")


def floor_caption(found: object) -> str:
    """What the dashed grey line is; '' if nothing was `found`."""
    return " Dashed grey: real samples measured like generated ones." if found else ""


def grey_caption(column: Column, published: tuple[Published, ...]) -> str:
    """Where the numbers of solid grey lines were published."""
    sources = sorted({cited for curve in curves(published, column) for cited in curve.cited})
    return f" Solid grey: published numbers ({'; '.join(sources)})." if sources else ""


def plan_comparison(data: Data, compared: Collection[str]) -> Iterator[Plan]:
    """Fronts of the data sets in `compared`, and the guidance rules of each method."""
    for dataset in data.datasets:
        if dataset in compared:
            yield from _fronts(data, dataset)
        for base, lines in data.ruled(dataset).items():
            yield from _rules(data, base, lines)


def _fronts(data: Data, dataset: str) -> Iterator[Plan]:
    for precision, recall in precision_pairs(data, dataset):
        yield Plan(
            slug(dataset, "front", precision.metric, *_parts(data, precision, recall)),
            dataset,
            f"{precision.label} against {recall.label}: up and right is better. {FRONT}",
            "quality_front",
            (data, precision, recall),
            first=True,
        )
    for column in cost_columns(data, dataset):
        if placed_cost(data, column, "nfe"):
            yield Plan(
                slug(dataset, "front", *_parts(data, column), "cost"),
                dataset,
                f"{column.title} against network evaluations and time per image, both as measured "
                "and on logarithmic axes. Costs count as exact; the time depends on the machine "
                f"that sampled. {FRONT}",
                "cost_fronts",
                (data, column),
                first=True,
            )


def _rules(data: Data, base: Series, lines: tuple[Series, ...]) -> Iterator[Plan]:
    """Measures and samples of one method under every guidance rule."""
    dataset, every = base.dataset, (base, *lines)
    parts = ("rules", base.method, base.run, str(base.steps), base.sampling)
    for column in data.columns:
        if column.dataset != dataset or column.about.standing == "listed":
            continue
        if any(data.cells(column, s) for s in lines):
            yield Plan(
                slug(dataset, *_parts(data, column), *parts),
                dataset,
                f"{column.title} of {base.label} under every guidance rule against guidance g "
                "(1 = off, where no rule acts). One panel per rule, all on the same axes: the rule "
                "in colour with its 95% interval, the other rules in grey; dashed is plain CFG"
                + (", dotted real against real." if data.floor(column).found else "."),
                "rule_panels",
                (data, column, base),
                column,
                every=column not in cost_columns(data, dataset),
            )
    shown = tuple(s for s in every if previews(data, s, Images))
    if any(s.rule for s in shown):
        yield Plan(
            slug(dataset, "samples", *parts),
            dataset,
            f"Samples of {base.label} under every guidance rule, one row per rule: the same noise "
            f"and classes in every row and block. A grey block has no samples; {ENLARGED}",
            "line_grid",
            (
                *(data, shown, tuple(s.rule or "cfg" for s in shown)),
                f"{dataset}: {base.label}, by rule",
            ),
        )
    toys: tuple[tuple[type[Preview], str, Drawing], ...] = (
        (Density, "densities", "densities"),
        (Points, "points", "clouds"),
    )
    for kind, name, drawing in toys:
        found = {s: previews(data, s, kind) for s in every}
        if any(found[s] for s in lines):
            scales = scales_of(found)
            yield Plan(
                slug(dataset, name, *parts),
                dataset,
                f"Samples of {base.label} under every guidance rule, one row per rule, as in the "
                "figure of methods.",
                drawing,
                (data, dataset, every, scales, RULE_HEIGHT),
                every=True,
            )


def scales_of(found: Mapping[Series, Mapping[float, object]]) -> list[float]:
    """The scales of a figure of samples with few columns."""
    return chosen_scales(sorted({g for some in found.values() for g in some}))


def plan_yardsticks(data: Data) -> Iterator[Plan]:
    """One figure for every data set with samples of the exact denoiser."""
    for dataset in data.datasets:
        lines = [s for s in data.series(dataset) if s.method == EXACT]
        drawings: tuple[tuple[type[Preview], Drawing], ...] = (
            (Density, "yardstick_densities"),
            (Points, "yardstick_planes"),
        )
        for kind, drawing in drawings:
            if any(previews(data, s, kind) for s in lines):
                caption = _yardstick_caption(dataset, kind)
                name = slug(dataset, "yardstick")
                yield Plan(name, dataset, caption, drawing, (data, dataset))


def _yardstick_caption(dataset: str, kind: type[Preview]) -> str:
    filled, line, how = (
        ("filled", "thin line", "densities of the first class, in data units")
        if kind is Density
        else ("dots", "crosses", "samples of the first class, in data units; curves hold 39% and "
              "99% of a density, as one and three standard deviations of a Gaussian do")
    )  # fmt: skip
    return (
        f"The target and the samples on {dataset}: {how}. Black: the target p(x|c). Dashed: the "
        "g-tilted density p(x|c)^g p(x)^(1-g), which guidance is often said to sample. Samples "
        f"({filled}) are from the closed-form denoiser under the rule of the row, so their "
        f"distance to the target is the error of the rule; {line}: the trained network under the "
        "same rule, at the lowest seed. One column per guidance scale g (1 = off). The first row "
        "sets the frame; samples outside it are counted, and bars above it are cut off. Of more "
        "than ten rules, those nearest to the target on average are shown."
    )


def plan_grids(data: Inversions) -> Iterator[Plan]:
    """One figure per run at its lowest and its highest guidance scale."""
    for dataset in data.datasets:
        for label, rows in data.runs(dataset).items():
            shown = [row for row in rows if row.status == "ok" and row.preview is not None]
            for row in {row.key: row for row in (*shown[:1], *shown[-1:])}.values():
                yield Plan(
                    slug(dataset, "edits", label, f"g{row.guidance:g}"),
                    dataset,
                    f"Edits of {dataset} by {label} at guidance g = {row.guidance:g} (1 = off). "
                    "One row per source, an image of the reference split: the source, its latent "
                    "(black to white over ±2.5 times the largest noise level), its reconstruction "
                    "at g = 1, and its edit to each other class; its own class is empty. Pixels "
                    "are enlarged without smoothing.",
                    "edit_grid",
                    (row, label),
                    every=row is not shown[-1],
                )


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
