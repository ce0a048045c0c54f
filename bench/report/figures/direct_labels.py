"""Labels beside points that cover neither each other nor the points, if there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from bench.report.figures.style import plain

Segment = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
SIZE = 7.5
_RADII = (6, 12, 20, 30, 42, 56, 72, 90, 110, 135)  # points
_ANGLES = (45, -45, 135, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110)
_SIDES: dict[float, tuple[Any, Any]] = {
    0.0: ("left", "bottom"), 0.5: ("center", "center"), 1.0: ("right", "top")
}  # fmt: skip
"""Alignment across and up, by the part of the text left of or below its anchor."""


@dataclass(frozen=True)
class Label:
    """Text at a point in data coordinates."""

    text: str
    at: tuple[float, float]
    colour: str


def put_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], points: npt.NDArray[np.float64]
) -> None:
    """Write labels next to their points, away from `points` (N, 2) in data coordinates.

    Everything else must be drawn before: the layout of the figure is fixed here. Greedy: each label
    takes the place with the lowest cost in a fixed list, and the nearest of equals.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    unit = figure.dpi / 72
    frame, dots = axes.get_window_extent(), axes.transData.transform(points)
    taken: list[Bbox] = []
    leaders: list[Segment] = []
    drawn: list[npt.NDArray[np.float64]] = []
    for label in labels:
        start = axes.transData.transform(label.at)
        artist = figure.text(0, 0, plain(label.text), fontsize=SIZE)
        size = artist.get_window_extent().size
        artist.remove()
        best: tuple[float, Any] = (np.inf, None)
        for radius, angle in product(_RADII, _ANGLES):
            shift = radius * unit * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
            part = np.where(abs(shift) < 1e-6, 0.5, shift < 0)
            low = start + shift - part * size
            box = Bbox([low, low + size]).padded(1)
            leader = (start, start + shift)
            reach = np.linspace(start, np.clip(start, box.min, box.max), 12)
            cost = 1000.0 * (frame.count_contains(box.corners()) < 4)
            cost += 300.0 * sum(box.overlaps(other) for other in taken)
            cost += 4.0 * box.padded(2 * unit).count_contains(dots) + 0.15 * radius
            cost += 40.0 * sum(other.count_contains(reach) > 0 for other in taken)
            cost += 40.0 * sum(box.count_contains(other) > 0 for other in drawn)
            # A long leader along an axis would look like a part of the front or a grid line.
            cost += 30.0 * (radius > _RADII[1] and angle % 90 == 0)
            cost += 25.0 * sum(_meet(leader, other) for other in leaders)
            if cost < best[0]:
                best = (cost, (shift, part, box, leader, radius, reach))
        shift, part, box, leader, radius, reach = best[1]
        taken.append(box)
        leaders.append(leader)
        drawn += [reach] if radius > _RADII[1] else []
        arrow = {
            **{"arrowstyle": "-", "color": label.colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 2},
            "relpos": tuple(part),  # else it would go to the middle of the text
        }
        axes.annotate(
            plain(label.text),
            label.at,
            xytext=tuple(shift / unit),
            textcoords="offset points",
            ha=_SIDES[part[0]][0],
            va=_SIDES[part[1]][1],
            fontsize=SIZE,
            color=label.colour,
            arrowprops=arrow if radius > _RADII[1] else None,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
            zorder=6,
        )


def _meet(a: Segment, b: Segment) -> bool:
    """Whether two segments cross."""

    def left(p: Any, q: Any, r: Any) -> bool:
        return bool((q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0]))

    return left(*a, b[0]) != left(*a, b[1]) and left(*b, a[0]) != left(*b, a[1])
