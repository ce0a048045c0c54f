"""The cells of all lines as compact JSON, for the interactive part of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.experiment.formatting import decimals, with_error
from bench.experiment.rows import Row
from bench.report.looks import Look, line_looks
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import Comparison, cost_columns
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import slug
from bench.report.numbers.pareto import precision_pairs
from bench.report.numbers.previews import trouble
from bench.report.pages.measures import titled
from bench.report.pages.pictures import Json, dumps, pictures_of, short, stored_samples

WIDTH = 1.6
"""Pixels of a line."""
MOST_PICKED = 6
"""Lines shown at first."""
MOST_LEADERS = 3
"""Of these, those that are there for their rank."""


def explorer(data: Data, found: Mapping[str, Comparison]) -> str:
    """The JSON of all data sets with values, safe inside a script element; '' if there is none."""
    sets = [
        _dataset(data, dataset, found.get(dataset))
        for dataset in data.datasets
        if data.series(dataset) and any(c.dataset == dataset for c in data.columns)
    ]
    return script_json({"sets": sets}) if sets else ""


def script_json(found: object) -> str:
    """JSON that no text in it can end: the parser of HTML does not know JSON's strings."""
    text = dumps(found)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _dataset(data: Data, dataset: str, comparison: Comparison | None) -> Json:
    columns = [c for c in data.columns if c.dataset == dataset]
    lines, scales = data.series(dataset), data.guidances(dataset)
    places = {s: i for i, s in enumerate(lines)}
    lead = [c for c in cost_columns(data, dataset) if c in columns] or columns
    picked = _picked(data, dataset, comparison)
    digits = [decimals(_values(data, c, lines, scales)) for c in columns]
    kind, shown = stored_samples(data, lines)
    pictures, shared = pictures_of(kind, shown)
    cfg = [s for name in ("edm", "oracle") for s in lines if s.method == name and not s.rule]
    ids = [slug(s.method, s.run, str(s.steps), s.sampling, s.rule) for s in lines]
    found, looks = [], line_looks(data)
    for i, s in enumerate(lines):
        sources: dict[object, int] = {}
        cells = [_cell(data, s, g, columns, digits, sources) for g in scales]
        for g, cell in zip(scales, cells, strict=True):
            if (s, g) in pictures:
                cell["p"] = pictures[s, g]
        found.append(
            {
                "id": ids[i] if ids.count(ids[i]) == 1 else f"{ids[i]}-{i}",
                "label": s.label,
                "method": s.method,
                "rule": s.rule,
                "look": _look(looks[s]),
                "base": places.get(s.base, -1) if s.rule else -1,
                "picked": s in picked,
                "cells": cells,
            }
        )
    pairs = precision_pairs(data, dataset)
    return {
        "name": dataset,
        "scales": [short(g) for g in scales],
        "measures": [_measure(data, c, d) for c, d in zip(columns, digits, strict=True)],
        "lead": columns.index(lead[0]),
        "pairs": [[columns.index(p), columns.index(r)] for p, r in pairs],
        "cfg": places[cfg[0]] if cfg else -1,
        "lines": found,
        **shared,
    }


def _look(look: Look) -> list[Any]:
    """Colours on white and on black, marker, dashes in pixels, and size."""
    dashes = " ".join(f"{WIDTH * length:g}" for length in look.dashes)
    return [look.colour, look.dark, look.mark, dashes, look.size]


def _measure(data: Data, column: Column, digits: int) -> Json:
    floor = data.floor(column)
    return {
        "id": slug(column.metric, column.extractor, str(column.n)),
        "label": column.label,
        "title": titled(column.title, column),
        "arrow": column.arrow,
        "better": column.direction,
        "scale": column.scale,
        "strength": column.about.strength,
        "ratios": column.about.ratios,
        "headline": column.about.is_headline,
        "floor": _value(floor, digits, {})[:5] if floor.found else None,
    }


def _picked(data: Data, dataset: str, comparison: Comparison | None) -> set[Series]:
    """The lines shown at first: the leading ones, then methods in their order."""
    best: list[Series] = []
    if comparison is not None:
        leading = [c for c in cost_columns(data, dataset) if c in comparison.rankings]
        ranking = comparison.rankings[(leading or list(comparison.rankings))[0]]
        best = [place.series for place in ranking.best][:MOST_LEADERS]
    # Lines with a single scale, which take no guidance, come after those of methods that do.
    plain = sorted(
        data.plain(dataset),
        key=lambda s: (data.variant(s) > 0, len({r.guidance for r in _ok(data, s)}) < 2),
    )
    order = (*best, *plain, *data.series(dataset))
    return set(list(dict.fromkeys(order))[:MOST_PICKED])


def _ok(data: Data, series: Series) -> list[Row]:
    return [row for row in data.rows_of(series) if row.status == "ok"]


def _values(
    data: Data, column: Column, lines: Iterable[Series], scales: Iterable[float]
) -> list[float]:
    cells = [data.floor(column), *(data.cell(column, s, g) for s in lines for g in scales)]
    return [v for cell in cells for v in cell.values]


def _cell(
    data: Data,
    series: Series,
    g: float,
    columns: list[Column],
    digits: list[int],
    sources: dict[object, int],
) -> Json:
    """Values by measure, costs, and why something is missing; `sources` numbers seeds or runs."""
    if not data.rows_of(series, g):
        return {}
    nfe, seconds = data.cost(series, g)
    cells = [data.cell(column, series, g) for column in columns]
    found: Json = {"nfe": nfe, "s": short(seconds)} if nfe else {}
    if any(cell.found for cell in cells):
        found["v"] = [
            _value(cell, d, sources) if cell.found else None
            for cell, d in zip(cells, digits, strict=True)
        ]
    if why := trouble(data, series, g):
        found["why"] = why
    return found


def _value(cell: Cell, digits: int, sources: dict[object, int]) -> list[Any]:
    """Mean, both ends of its interval, its text and error as in tables, and values by seed or run.

    The last is missing for a single one.
    """
    low, high = cell.band or (None, None)
    found = [*map(short, (cell.mean, low, high)), *with_error(cell.estimate, digits)]
    if len(cell.blocks) < 2:
        return found
    values = zip(cell.sources, cell.blocks, strict=True)
    return [*found, {sources.setdefault(of, len(sources)): short(v) for of, v in values}]
