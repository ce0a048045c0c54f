"""The figures that a reader needs first: measures against guidance, and samples of the methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.experiment.rows import Density, Images, Points
from bench.report.figures.figures import (
    ENLARGED,
    POINTS,
    ROWS,
    Plan,
    better,
    floor_caption,
    grey_caption,
    scales_of,
    uncertainty_caption,
)
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import cost_columns
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import slug
from bench.report.numbers.pareto import precision_pairs
from bench.report.numbers.previews import previews
from bench.report.numbers.published import Published

CLOSE = ("oracle", "edm", "igct")
"""The methods whose samples are shown close to the modes."""


def plan_overview(data: Data, published: tuple[Published, ...]) -> Iterator[Plan]:
    """For every data set its leading measures against guidance, and samples side by side."""
    for dataset in data.datasets:
        lines = _one_each(data, dataset)
        columns = _leading(data, dataset)
        if any(data.cells(column, s) for column in columns for s in lines):
            caption = "; ".join(f"{c.title} ({better(c)})" for c in columns)
            cells = [data.cell(c, s, g) for c in columns for s in lines
                     for g in data.guidances(dataset)]  # fmt: skip
            yield Plan(
                slug(dataset, "guidance"),
                dataset,
                f"{dataset} against guidance g (1 = off): {caption}. One line per method, at its "
                f"largest number of steps{uncertainty_caption(cells)}"
                + floor_caption(any(data.floor(c).found for c in columns))
                + grey_caption(columns[0], published),
                "guidance_panels",
                (data, columns, lines, published),
                first=True,
            )
        yield from _side_by_side(data, dataset, lines)


def _one_each(data: Data, dataset: str) -> tuple[Series, ...]:
    """One line for every method, and for every run if there are several: that with most steps."""
    lines = data.plain(dataset)
    most: dict[tuple[str, str, str], Series] = {}
    for s in sorted(lines, key=lambda s: s.steps):
        most[s.method, s.run, s.rule] = s
    return tuple(s for s in lines if s in most.values())


def _leading(data: Data, dataset: str) -> tuple[Column, ...]:
    """The leading measure, and the precision and recall with as many samples."""
    lead = cost_columns(data, dataset)[:1]
    pairs = sorted(precision_pairs(data, dataset), key=lambda p: [c.n != p[0].n for c in lead])
    return tuple(dict.fromkeys((*lead, *(c for pair in pairs[:1] for c in pair))))


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sets of samples have the same classes, as far as both have samples."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _side_by_side(data: Data, dataset: str, lines: Sequence[Series]) -> Iterator[Plan]:
    """Samples of the methods at four scales: images of all, toy data of the three that matter."""
    images = {s: list(found.values()) for s in lines if (found := previews(data, s, Images))}
    first = next(iter(images.values()))[0].labels if images else ()
    same = tuple(s for s, found in images.items() if all(_alike(first, p.labels) for p in found))
    if same:
        yield Plan(
            slug(dataset, "samples"),
            dataset,
            "Samples of the methods, one row per method, at its largest number of steps: the same "
            f"noise and classes in every row and block. A grey block has no samples; {ENLARGED}",
            "line_grid",
            (data, same, tuple(s.label for s in same), dataset),
            first=True,
        )
    close = [s for s in lines if s.method in CLOSE] or list(lines[: len(CLOSE)])
    densities = {s: some for s in close if (some := previews(data, s, Density))}
    if densities:
        yield Plan(
            slug(dataset, "modes"),
            dataset,
            "Samples of the first class close to its modes, in data units, against the exact "
            "density (black). One row per method, each with its own height, one column per "
            "guidance scale g (1 = off); the lowest seed is shown.",
            "modes",
            (data, dataset, tuple(densities), tuple(scales_of(densities))),
            first=True,
        )
    points = {s: dots for s in close if (dots := previews(data, s, Points))}
    if points:
        yield Plan(
            slug(dataset, "modes"),
            dataset,
            f"{POINTS} {ROWS}",
            "clouds",
            (data, dataset, tuple(points), tuple(scales_of(points))),
            first=True,
        )
