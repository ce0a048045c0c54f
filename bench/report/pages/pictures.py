"""The stored samples of a data set as compact JSON: images, densities and points in the plane."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench.experiment.rows import Density, Images, Points, Preview
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.previews import previews
from bench.report.pages.strips import fit

Json = dict[str, Any]
LARGEST = 1e9
"""Coordinate of samples that a panel can show."""
GRID = 999
"""Coordinates of points are whole numbers from 0 to this across the frame."""
MOST_POINTS = 60_000
"""Samples in the plane, over all panels of a data set."""
MOST_PEAKS = 3.0
"""Height of a density panel, in peaks of the exact density."""
_DAMAGED = "the stored samples cannot be shown"


def dumps(found: object) -> str:
    """JSON without spaces; ValueError for NaN and infinity."""
    return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def short(value: float | None) -> float | int | None:
    """Five significant digits; None for a number that overflowed."""
    if value is None or not math.isfinite(value):
        return None
    found = float(f"{value:.5g}")
    return int(found) if found.is_integer() and abs(found) < 1e6 else found


class Shared:
    """Values that occur in several cells, stored once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def add(self, found: object) -> int:
        """The place of a value."""
        return self._places.setdefault(dumps(found), len(self._places))

    @property
    def values(self) -> list[Any]:
        """All values by place."""
        return [json.loads(text) for text in self._places]


Shown = dict[tuple[Series, float], Preview]


def stored_samples(data: Data, lines: Iterable[Series]) -> tuple[str, Shown]:
    """The previews of a data set by line and scale, and their kind."""
    for kind in (Images, Density, Points):
        found: Shown = {(s, g): p for s in lines for g, p in previews(data, s, kind).items()}
        if found:
            return next(iter(found.values())).kind, found
    return "", {}


def pictures_of(kind: str, shown: Shown) -> tuple[dict[tuple[Series, float], int], Json]:
    """The place of each cell's picture, and what the pictures of a data set share."""
    store = Shared()
    if kind == "images":
        strips = {at: p for at, p in shown.items() if isinstance(p, Images)}
        sizes = fit({p.png: len(p.labels) for p in strips.values()})
        places = {
            at: store.add(
                {"png": sizes[p.png][0], "names": _names(p, sizes[p.png][1])}
                if p.png in sizes
                else {"why": _DAMAGED}
            )
            for at, p in strips.items()
        }
        return places, {"kind": kind, "pictures": store.values}
    if kind == "density":
        densities = {at: p for at, p in shown.items() if isinstance(p, Density) and _is_sound(p)}
        edges, targets = Shared(), Shared()
        places = {
            at: store.add(
                {
                    "edges": edges.add([short(e) for e in p.edges]),
                    "target": targets.add(_target(p)),
                    "counts": [_trimmed(c) for c in p.counts],
                    "note": _beyond(p),
                }
            )
            for at, p in densities.items()
        }
        return places, {
            "kind": kind,
            "pictures": store.values,
            "edges": edges.values,
            "targets": targets.values,
            "frame": _interval(list(densities.values())),
        }
    points = {at: p for at, p in shown.items() if isinstance(p, Points) and _is_sound(p)}
    targets = Shared()
    kept = MOST_POINTS // max(1, len(set(map(id, points.values()))))
    points = {at: _first(p, kept) for at, p in points.items()}
    low, high = _square(list(points.values()))
    places = {
        at: store.add({"target": targets.add(_target(p)), **_grid(p, low, high)})
        for at, p in points.items()
    }
    return places, {
        "kind": kind,
        "pictures": store.values,
        "targets": targets.values,
        "frame": [*map(short, low), *map(short, high)],
    }


def _first(preview: Points, count: int) -> Points:
    """The first samples of a preview."""
    kept = {"xy": preview.xy[:count], "labels": preview.labels[:count]}
    return preview.model_copy(update=kept)


def _names(images: Images, count: int) -> list[str]:
    """The class of each tile."""
    known = images.class_names
    return [known[k] if k < len(known) else str(k) for k in images.labels[:count]]


def _target(preview: Density | Points) -> Json:
    """The exact modes of every class, and their standard deviation."""
    return {"means": _rounded(preview.means), "std": short(preview.std)}


def _rounded(found: Any) -> Any:
    return [_rounded(f) for f in found] if isinstance(found, tuple) else short(found)


def _is_sound(preview: Density | Points) -> bool:
    """Whether the parts of a preview fit together and can be drawn."""
    if not 1 / LARGEST < preview.std < LARGEST or not preview.means or not all(preview.means):
        return False
    numbers = [n for means in preview.means for n in np.ravel(means)]
    numbers += preview.edges if isinstance(preview, Density) else np.ravel(preview.xy).tolist()
    if max(map(abs, numbers)) >= LARGEST:
        return False
    if isinstance(preview, Points):
        known = len(preview.means)
        return len(preview.xy) == len(preview.labels) and all(k < known for k in preview.labels)
    steps = np.diff(preview.edges)
    return (
        len(preview.counts) == len(preview.means)
        and len(steps) > 1
        and bool(np.all(steps > 0))
        and all(len(c) == len(steps) for c in preview.counts)
    )


def _trimmed(counts: tuple[int, ...]) -> list[int]:
    """The place of the first count above 0, then the counts up to the last one above 0."""
    filled = np.flatnonzero(counts)
    return [int(filled[0]), *counts[filled[0] : filled[-1] + 1]] if filled.size else [0]


def _interval(found: list[Density]) -> list[Any]:
    """Left, right and height of all panels: they hold the samples and the exact density."""
    low, high, peak, tallest = [], [], 0.0, 0.0
    for p in found:
        edges, counts = np.asarray(p.edges), np.asarray(p.counts, dtype=float)
        filled = np.flatnonzero(counts.sum(0)[1:-1]) + 1
        modes = [mode for means in p.means for mode in means]
        low += [min(modes) - 4 * p.std, *edges[filled[:1]]]
        high += [max(modes) + 4 * p.std, *edges[filled[-1:] + 1]]
        bars = counts[:, 1:-1] / (np.maximum(counts.sum(1), 1.0)[:, None] * np.diff(edges)[1:-1])
        tallest = max(tallest, float(bars.max(initial=0.0)))
        peak = max(peak, 1 / (p.std * math.sqrt(2 * math.pi) * min(map(len, p.means))))
    if not found:
        return [0, 1, 1]
    pad = 0.02 * (max(high) - min(low))
    top = 1.05 * min(max(tallest, peak), MOST_PEAKS * peak)
    return [*map(short, (min(low) - pad, max(high) + pad, top))]


def _square(found: list[Points]) -> tuple[list[float], list[float]]:
    """Corners of all panels: they hold the modes and all but the outermost samples."""
    if not found:
        return [0.0, 0.0], [1.0, 1.0]
    modes = np.array([mode for p in found for means in p.means for mode in means])
    margin = 4 * max(p.std for p in found)
    low, high = modes.min(0) - margin, modes.max(0) + margin
    xy = np.array([point for p in found for point in p.xy]).reshape(-1, 2)
    if len(xy):
        wide = high - low
        low = np.minimum(low, np.maximum(np.quantile(xy, 0.005, axis=0), low - wide))
        high = np.maximum(high, np.minimum(np.quantile(xy, 0.995, axis=0), high + wide))
    return low.tolist(), high.tolist()


def _beyond(preview: Density) -> str:
    """How many samples are in the outermost bins, which count all beyond; '' for hardly any."""
    counts = np.asarray(preview.counts)
    share = float(counts[:, [0, -1]].sum() / max(counts.sum(), 1))
    return f"{share:.0%} beyond" if share >= 0.005 else ""


def _grid(preview: Points, low: list[float], high: list[float]) -> Json:
    """For each class the samples inside the frame, as x, y, x, y, ... on a grid."""
    xy = np.asarray(preview.xy, dtype=float).reshape(-1, 2)
    found = np.rint(GRID * (xy - low) / (np.subtract(high, low))).astype(int)
    inside = np.all((found >= 0) & (found <= GRID), axis=1)
    labels = np.asarray(preview.labels, dtype=int)
    outside = int(np.sum(~inside))
    return {
        "points": [
            found[inside & (labels == k)].ravel().tolist() for k in range(len(preview.means))
        ],
        "note": f"{outside} outside" if outside else "",
    }
