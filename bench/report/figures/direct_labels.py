"""Labels beside points that cover neither each other nor the points, as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from bench.report.figures.style import plain

Spot = tuple[float, float]
SIZE = 7.5
_RADII = (6, 12, 20, 30, 42, 56, 72, 90, 110, 135)  # points
_ANGLES = (45, -45, 135, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110)


@dataclass(frozen=True)
class Label:
    """Text at a point in data coordinates."""

    text: str
    at: tuple[float, float]
    colour: str


def put_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], points: npt.NDArray[np.float64]
) -> None:
    """Write labels next to what they name; `points` (N, 2) in data coordinates are kept free.

    Everything else of the figure must be drawn: its layout is settled here, and labels stay in it.
    Greedy: each takes the nearest free place of a fixed list, else the one that covers least.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    unit = figure.dpi / 72
    frame = axes.get_window_extent()
    dots = axes.transData.transform(points) if len(points) else np.empty((0, 2))
    taken: list[Bbox] = []
    leaders: list[tuple[Spot, Spot]] = []
    for label in labels:
        x, y = axes.transData.transform(label.at)
        width, height = _extent(figure, label.text)
        best: tuple[float, Any] = (np.inf, None)
        for radius in _RADII:
            for angle in _ANGLES:
                dx, dy = (radius * unit * f(np.deg2rad(angle)) for f in (np.cos, np.sin))
                box = _box(x + dx, y + dy, dx, dy, width, height)
                out = not (
                    frame.x0 <= box.x0 and box.x1 <= frame.x1
                    and frame.y0 <= box.y0 and box.y1 <= frame.y1
                )  # fmt: skip
                clash = sum(box.overlaps(other) for other in taken)
                covered = int(_within(box, dots, 2 * unit).sum())
                cost = 1000.0 * out + 300.0 * clash + 4.0 * covered + 0.15 * radius
                cost += 40.0 * _crossing((x, y), box, taken)
                # Along an axis a long leader would pass for a part of the front or a grid line.
                cost += 30.0 * (radius > _RADII[1] and angle % 90 == 0)
                leader = ((x, y), (x + dx, y + dy))
                cost += 25.0 * sum(_meet(leader, other) for other in leaders)
                if cost < best[0]:
                    best = (cost, (dx, dy, box, radius))
        dx, dy, box, radius = best[1]
        taken.append(box)
        leaders.append(((x, y), (x + dx, y + dy)))
        _write(axes, label, (dx / unit, dy / unit), radius)


def _write(axes: Axes, label: Label, offset: tuple[float, float], radius: float) -> None:
    arrow = {"arrowstyle": "-", "color": label.colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 2}
    axes.annotate(
        plain(label.text),
        label.at,
        xytext=offset,
        textcoords="offset points",
        ha=_side(offset[0], "left", "right"),
        va=_side(offset[1], "bottom", "top"),
        fontsize=SIZE,
        color=label.colour,
        arrowprops=arrow if radius > _RADII[1] else None,
        path_effects=[withStroke(linewidth=2.2, foreground="white")],
        zorder=6,
    )


def _side(shift: float, positive: str, negative: str) -> Any:
    """Which side of the text is at the offset point: the one towards what it names."""
    return "center" if abs(shift) < 1e-6 else positive if shift > 0 else negative


def _box(x: float, y: float, dx: float, dy: float, width: float, height: float) -> Bbox:
    left = x - width / 2 if abs(dx) < 1e-6 else x if dx > 0 else x - width
    low = y - height / 2 if abs(dy) < 1e-6 else y if dy > 0 else y - height
    return Bbox.from_bounds(left - 1, low - 1, width + 2, height + 2)


def _extent(figure: Figure, text: str) -> tuple[float, float]:
    """Width and height of a text in pixels."""
    artist = figure.text(0, 0, plain(text), fontsize=SIZE)
    box = artist.get_window_extent()
    artist.remove()
    return box.width, box.height


def _within(box: Bbox, dots: npt.NDArray[np.float64], margin: float) -> npt.NDArray[np.bool_]:
    x, y = dots[:, 0], dots[:, 1]
    inside: npt.NDArray[np.bool_] = (
        (box.x0 - margin < x) & (x < box.x1 + margin)
        & (box.y0 - margin < y) & (y < box.y1 + margin)
    )  # fmt: skip
    return inside


def _crossing(start: Spot, box: Bbox, taken: Sequence[Bbox]) -> int:
    """How many labels the line from a point to the nearest spot of its label would cross."""
    end = np.clip(start, (box.x0, box.y0), (box.x1, box.y1))
    path = np.linspace(start, end, 12)
    return sum(bool(_within(other, path, 0.0).any()) for other in taken)


def _meet(a: tuple[Spot, Spot], b: tuple[Spot, Spot]) -> bool:
    """Whether two segments cross."""

    def side(p: Spot, q: Spot, r: Spot) -> bool:
        return (q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0])

    apart = side(*a, b[0]) != side(*a, b[1])
    return apart and side(*b, a[0]) != side(*b, a[1])
