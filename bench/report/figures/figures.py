"""The list of figures of a report, each with its caption and how to draw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from bench.experiment.rows import Density, Images, Points
from bench.report.figures.clouds import clouds, densities
from bench.report.figures.curves import metric_curve, precision_recall
from bench.report.figures.grids import sample_grid
from bench.report.figures.previews import previews
from bench.report.figures.style import method_styles
from bench.report.numbers.cells import Cell
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.hypervolume import precision_pairs
from bench.report.numbers.lines import plain
from bench.report.numbers.names import FLOOR, slug
from bench.report.numbers.published import Published, curves


@dataclass(frozen=True)
class Plan:
    """One figure to be drawn: the stem of its files, what its caption says, its subject."""

    name: str
    dataset: str
    caption: str
    draw: Callable[[], Figure]
    column: Column | None = None
    first: bool = False
    """Whether it stands before the measures of its data set."""


def plan_figures(data: Data, published: tuple[Published, ...]) -> Iterator[Plan]:
    """Every figure that the rows have something for."""
    styles = method_styles(data.methods)
    for column in data.columns:
        if any(data.cell(column, s, g).values for s, g in _points(data, column.dataset)):
            yield Plan(
                slug(column.dataset, column.metric, column.extractor, size_of(data, column)),
                column.dataset,
                _curve_caption(data, column, published),
                lambda column=column: metric_curve(data, column, published, styles),  # type: ignore[misc]
                column,
            )
    for dataset in data.datasets:
        yield from _pairs(data, dataset, published)
        yield from _samples(data, dataset)


def size_of(data: Data, column: Column) -> str:
    """Return the number of samples, where a measure was taken at several; '' otherwise."""
    sizes = {
        c.n
        for c in data.columns
        if (c.dataset, c.metric, c.extractor) == (column.dataset, column.metric, column.extractor)
    }
    return f"n{column.n}" if len(sizes) > 1 else ""


def _points(data: Data, dataset: str) -> list[tuple[Series, float]]:
    return [(s, g) for s in plain(data, dataset) for g in data.guidances(dataset)]


def _pairs(data: Data, dataset: str, published: tuple[Published, ...]) -> Iterator[Plan]:
    """Precision against recall for every extractor that has both."""
    styles = method_styles(data.methods)
    for precision, recall in precision_pairs(data, dataset):
        parts = (precision.metric, recall.metric, precision.extractor, size_of(data, precision))
        yield Plan(
            slug(dataset, *parts),
            dataset,
            f"{precision.label} (how many samples look real) against {recall.label} (how much of "
            "the real set is covered) along guidance, both without unit; up and right is better. "
            "One path per method and number of steps, its ends marked with their g"
            + (
                "; bars are 95% intervals, or the range of two seeds or runs"
                if any(data.cell(precision, s, g).band for s, g in _points(data, dataset))
                else ""
            )
            + (
                "; the star is real against real."
                if data.floor(recall).values and data.floor(precision).values
                else "."
            )
            + _grey_caption(precision, published),
            lambda p=precision, r=recall: precision_recall(data, p, r, published, styles),  # type: ignore[misc]
        )


def _samples(data: Data, dataset: str) -> Iterator[Plan]:
    """Densities, point clouds and grids of stored samples; rules have figures of their own."""
    lines = plain(data, dataset)
    if any(previews(data, s, Density) for s in lines):
        yield Plan(
            slug(dataset, "densities"),
            dataset,
            "Histograms of samples by class, in data units, against the exact density of the "
            "class (black). One row per method and number of steps, one column per guidance "
            "scale g (1 = off); the lowest seed is shown.",
            lambda: densities(data, dataset, lines),
        )
    if any(previews(data, s, Points) for s in lines):
        yield Plan(
            slug(dataset, "points"),
            dataset,
            "Samples in data units, one colour and marker per class, with the circles of one "
            "(solid) and three (dashed) standard deviations around the exact modes. One row per "
            "method and number of steps, one column per guidance scale g (1 = off); the lowest "
            "seed is shown.",
            lambda: clouds(data, dataset, lines),
        )
    floor = {data.series_of(r) for r in data.rows if r.dataset == dataset and r.method == FLOOR}
    for line in (*lines, *sorted(floor, key=lambda s: s.run)):
        if previews(data, line, Images):
            yield Plan(
                slug(dataset, "samples", line.method, line.run, str(line.steps or ""), line.rule),
                dataset,
                _grid_caption(line),
                lambda line=line: sample_grid(data, line),  # type: ignore[misc]
            )


def _grid_caption(line: Series) -> str:
    if line.method == FLOOR:
        return "Real samples that are not in the reference set, with their classes on top."
    return (
        f"Samples of {line.label}: one row per guidance scale g (1 = off), one column per sample "
        "index, which is the same noise and class in every row and for every method. The class "
        "asked for is on top; the lowest seed is shown, pixels are enlarged without smoothing."
    )


def _curve_caption(data: Data, column: Column, published: tuple[Published, ...]) -> str:
    better = {
        "lower": "lower is better",
        "higher": "higher is better",
        "none": "neither direction is better",
    }
    text = f"{column.title} on {column.dataset} against guidance g (1 = off); "
    text += f"{better[column.direction]}. One line per method and number of steps"
    cells = [data.cell(column, s, g) for s, g in _points(data, column.dataset)]
    text += _bands([cell for cell in cells if cell.found])
    if data.floor(column).values:
        text += " Dashed grey: real samples measured like generated ones."
    return text + _grey_caption(column, published)


def _bands(cells: Sequence[Cell]) -> str:
    """The end of a sentence on lines, and what their bands or bars are."""
    text = ", the mean over seeds" if any(len(c.blocks) > 1 for c in cells) else ""
    kinds = [
        ("the 95% interval of a single run", any(len(c.blocks) == 1 and c.band for c in cells)),
        ("the 95% interval of the mean by Student's t", any(len(c.blocks) > 2 for c in cells)),
        ("the range of two seeds or runs", any(len(c.blocks) == 2 for c in cells)),
    ]
    found = [kind for kind, there in kinds if there]
    return f"{text}; shaded: {', or '.join(found)}." if found else f"{text}."


def _grey_caption(column: Column, published: tuple[Published, ...]) -> str:
    found = curves(published, column)
    sources = sorted({cited for curve in found for cited in curve.cited})
    return f" Solid grey: published numbers ({'; '.join(sources)})." if sources else ""
