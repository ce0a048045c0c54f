"""The comparison of the lines of a data set: rankings, hypervolumes, fronts, and CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.pareto import (
    COSTS,
    Point,
    hypervolumes,
    placed_cost,
    placed_quality,
    precision_pairs,
)
from bench.report.numbers.ranking import Place, Ranking, make_ranking, rank


@dataclass(frozen=True)
class Comparison:
    """A data set with several lines.

    `areas` are ranked hypervolumes by their columns. `fronts` are all operating points by name of a
    measure or cost (x) and column (y).
    """

    dataset: str
    rankings: Mapping[Column, Ranking]
    areas: Mapping[tuple[Column, Column], tuple[Place, ...]]
    fronts: Mapping[tuple[str, Column], tuple[Point, ...]]


def cost_columns(data: Data, dataset: str) -> list[Column]:
    """The leading measure of a data set, at all sample counts: it is compared with costs.

    The measures with the highest `lead` and a direction: the distance to the exact density if that
    is known, since a Frechet distance depends only on mean and covariance. Otherwise the first.
    """
    own = [c for c in data.columns if c.dataset == dataset and c.direction != "none"]
    most = max((c.about.lead for c in own), default=0)
    return [c for c in own if c.about.lead == most] if most else own[:1]


def compare(data: Data) -> dict[str, Comparison]:
    """Comparisons of the data sets that have at least two lines with values."""
    found = {}
    for dataset in data.datasets:
        own = [c for c in data.columns if c.dataset == dataset and c.about.is_headline]
        rankings = {c: r for c in own if (r := make_ranking(data, c)) is not None}
        if not rankings:
            continue
        pairs = precision_pairs(data, dataset)
        areas = {pair: rank(hypervolumes(data, *pair), "higher") for pair in pairs}
        fronts = {(r.metric, p): placed_quality(data, p, r) for p, r in pairs} | {
            (what, column): placed_cost(data, column, what)
            for column in cost_columns(data, dataset)
            for what in COSTS
        }
        kept = {axes: points for axes, points in fronts.items() if points}
        found[dataset] = Comparison(dataset, rankings, areas, kept)
    return found


def _line(series: Series) -> dict[str, object]:
    names = ("method", "rule", "run", "steps", "sampling")
    return {name: getattr(series, name) for name in names} | {"line": series.label}


def _measure(column: Column) -> dict[str, object]:
    return {name: getattr(column, name) for name in ("dataset", "metric", "extractor", "n")}


def _against(place: Place) -> dict[str, object]:
    c = place.against
    value, se, paired = (None, None, None) if c is None else (c.value, c.se, c.paired)
    return {
        **{"rank": place.rank, "group": place.group or None, "behind_leader": value},
        **{"behind_se": se, "p_holm": place.p, "paired": paired},
    }


def _operating(found: Mapping[str, Comparison]) -> Iterator[dict[str, object]]:
    for ranking in _rankings(found):
        for series, point in ranking.points.items():
            e = point.entry.estimate
            yield {
                **_measure(ranking.column),
                **_line(series),
                **{"guidance": point.guidance, "value": e.value, "se": e.se, "nfe": point.nfe},
                **{"seconds_per_image": point.seconds or None, "scales": point.scales},
                **{"held_out": point.held_out, "optimistic": point.is_optimistic},
            }


def _ranking(found: Mapping[str, Comparison]) -> Iterator[dict[str, object]]:
    for ranking in _rankings(found):
        for by, places in (("best", ranking.best), ("mean", ranking.mean)):
            for place in places:
                e = place.entry.estimate
                line = {"by": by, **_line(place.series), "value": e.value, "se": e.se}
                yield _measure(ranking.column) | line | _against(place)


def _areas(found: Mapping[str, Comparison]) -> Iterator[dict[str, object]]:
    for comparison in found.values():
        for (precision, recall), places in comparison.areas.items():
            for place in places:
                e = place.entry.estimate
                yield {
                    **{"dataset": precision.dataset, "precision": precision.metric},
                    **{"recall": recall.metric, "extractor": precision.extractor},
                    **{"n": precision.n, **_line(place.series)},
                    **{"scales": len(place.entry.sides[0]), "hypervolume": e.value},
                    **{"se": e.se, "se_method": e.se_method, **_against(place)},
                }


def _points(found: Mapping[str, Comparison]) -> Iterator[dict[str, object]]:
    for comparison in found.values():
        for (across, up), points in comparison.fronts.items():
            for p in points:
                x, y = p.x_span or (None, None), p.y_span or (None, None)
                yield {
                    **_measure(up),
                    **{"against": across, **_line(p.series), "guidance": p.guidance},
                    **{"x": p.x, "x_low": x[0], "x_high": x[1]},
                    **{"y": p.y, "y_low": y[0], "y_high": y[1]},
                    **{"on_front": p.on_front, "certain": p.certain},
                }


def _rankings(found: Mapping[str, Comparison]) -> Iterator[Ranking]:
    for comparison in found.values():
        yield from comparison.rankings.values()


FILES = {
    "pareto.csv": _points,
    "hypervolume.csv": _areas,
    "operating_points.csv": _operating,
    "ranking.csv": _ranking,
}


def comparison_frames(found: Mapping[str, Comparison]) -> dict[str, pd.DataFrame | None]:
    """The CSV files by name; None for an empty one."""
    frames = {name: pd.DataFrame.from_records(list(make(found))) for name, make in FILES.items()}
    return {name: None if frame.empty else frame for name, frame in frames.items()}
