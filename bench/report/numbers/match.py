"""The guidance scale at which CFG reaches the same outcome as another line.

CFG's measured values are interpolated by Fritsch and Carlson's cubic (PCHIP), which is monotone
between two measured scales. It is never extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.special import stdtrit

from bench.experiment.rows import Z95
from bench.report.numbers.cells import Cell, restricted
from bench.report.numbers.entries import two_sided
from metrics.base import Direction

FINE = 32
"""Points between two scales at which a curve is compared with an outcome."""
LEAST_SCALES = 3
"""A curve needs as many: with fewer no scale can be left out and predicted."""
CLOSE = 0.03
"""CFG counts as run at a scale if it was run within this share of it."""
ROUNDING = 1e-9
"""Of a value: replicates are stored with ten digits."""
Array = npt.NDArray[np.float64]
Place = Literal["at", "plateau", "several", "below", "beyond"]


@dataclass(frozen=True)
class Level:
    """A value, its standard error (None if unknown), and it without one group of samples each.

    `left` (groups,) is empty if these values are not known.
    """

    value: float
    se: float | None
    left: Array

    @property
    def draws(self) -> Array:
        """The value and then `left`, (1 + groups,)."""
        return np.array([self.value, *self.left])


def level(cell: Cell, seeds: frozenset[int]) -> Level | None:
    """The mean of a cell over these sampling seeds; None if it lacks one of them."""
    if not seeds <= {row.seed for row, _ in cell.found}:
        return None
    own = restricted(cell, seeds)
    averaged, estimate = own.averaged, own.estimate
    if averaged is None:
        return Level(estimate.value, estimate.se, np.empty(0))
    return Level(averaged.value, estimate.se, np.array(averaged.replicates))


@dataclass(frozen=True)
class Curve:
    """The values of one measure along the ascending scales (k,) at which CFG was run.

    `draws` (1 + groups, k): the values, and then the values without one group of samples each;
    only the first row if groups are not known. `se` (k,) is NaN where it is unknown.
    """

    scales: Array
    draws: Array
    se: Array

    @cached_property
    def _cubic(self) -> PchipInterpolator:
        return PchipInterpolator(self.scales, self.draws.T)

    @cached_property
    def _slope(self) -> PchipInterpolator:
        return PchipInterpolator(self.scales, self.draws[0]).derivative()

    @cached_property
    def grid(self) -> Array:
        """The scales and FINE points between each two, ascending (m,)."""
        parts = [np.linspace(a, b, FINE, endpoint=False)
                 for a, b in zip(self.scales[:-1], self.scales[1:], strict=True)]  # fmt: skip
        return np.concatenate([*parts, self.scales[-1:]])

    @cached_property
    def on_grid(self) -> Array:
        """The values on `grid`, (1 + groups, m)."""
        return self.at(self.grid)

    def at(self, scales: Array) -> Array:
        """The values at scales (m,) within the range, (1 + groups, m)."""
        return np.asarray(self._cubic(scales)).T

    def slope(self, scale: float) -> float:
        """The derivative of the value at a scale."""
        return float(self._slope(scale))

    def se_at(self, scales: Array) -> Array:
        """The standard error at scales (m,), linear between measured ones."""
        return np.interp(scales, self.scales, self.se)

    @cached_property
    def left_out(self) -> Array:
        """How far the curve without a scale misses the value there, (k,); 0 at both ends."""
        misses = np.zeros(len(self.scales))
        for i in range(1, len(self.scales) - 1):
            rest = PchipInterpolator(np.delete(self.scales, i), np.delete(self.draws[0], i))
            misses[i] = abs(float(rest(self.scales[i])) - self.draws[0, i])
        return misses

    def miss(self, scales: Array) -> Array:
        """The error of the interpolation at scales (m,).

        It is 0 at a measured scale, and between two of them at most the larger of their
        `left_out`.
        """
        i = np.clip(np.searchsorted(self.scales, scales) - 1, 0, len(self.scales) - 2)
        t = (scales - self.scales[i]) / (self.scales[i + 1] - self.scales[i])
        return np.maximum(self.left_out[i], self.left_out[i + 1]) * 4 * t * (1 - t)


def make_curve(levels: Mapping[float, Level]) -> Curve | None:
    """The curve through levels by scale; None for too few scales."""
    if len(levels) < LEAST_SCALES:
        return None
    scales = sorted(levels)
    found = [levels[g] for g in scales]
    groups = {len(one.left) for one in found}
    draws = np.array([one.draws if len(groups) == 1 else [one.value] for one in found]).T
    se = np.array([np.nan if one.se is None else one.se for one in found])
    return Curve(np.array(scales), draws, se)


@dataclass(frozen=True)
class Match:
    """Where CFG has the outcome of another line.

    `place` is "at" for a scale `scale` with the 95% interval from `low` to `high`, within the
    measured range. On a "plateau" the interval is too wide to compare anything at its scale:
    wider than 1 and than half of `scale`. "several" separate intervals fit an outcome that rises
    and falls. "below": the outcome is worse than that of CFG at its lowest scale, which CFG may
    share at a scale that nobody would choose; or CFG does not reach it and is nearest there.
    "beyond": CFG does not reach it. The interval has the error of the paired samples, if `paired`,
    or else of the rows, and the error of the interpolation.
    """

    place: Place
    scale: float
    low: float
    high: float
    paired: bool
    measured: bool
    """Whether CFG was run at `scale`."""


def find_match(curve: Curve, outcome: Level, direction: Direction) -> Match | None:
    """The scale of equal outcome; None if nothing is known of the errors.

    `direction` is the better one of the outcome.
    """
    groups = len(outcome.left)
    paired = groups > 1 and len(curve.draws) == 1 + groups
    grid = curve.grid
    if paired:
        gaps = curve.on_grid - outcome.draws[:, None]
        half = float(stdtrit(groups - 1, 0.975)) * jackknife_se(gaps[1:])
    elif outcome.se is None or np.isnan(curve.se).any():
        return None
    else:
        gaps = curve.on_grid[:1] - outcome.value
        half = Z95 * np.hypot(outcome.se, curve.se_at(grid))
    gap = gaps[0]
    fits = np.abs(gap) <= np.hypot(half, curve.miss(grid))
    crossed = gap[:-1] * gap[1:] < 0
    fits[:-1] |= crossed
    fits[1:] |= crossed
    nearest = int(np.abs(gap).argmin())
    inside = np.flatnonzero(fits)
    worse = {"lower": gap[0] < 0, "higher": gap[0] > 0, "none": nearest == 0 and len(inside) == 0}
    if not fits[0] and worse[direction]:
        nearest, inside = 0, inside[:0]
    if len(inside) == 0:
        at = float(grid[nearest])
        return Match("below" if nearest == 0 else "beyond", at, at, at, paired, False)
    low, high = float(grid[inside[0]]), float(grid[inside[-1]])
    scale = _crossing(grid, gap, crossed, nearest)
    place: Place = "at"
    if np.any(np.diff(inside) > 1):
        place = "several"
    elif high - low > max(1.0, scale / 2):
        place = "plateau"
    measured = bool(np.abs(curve.scales - scale).min() <= CLOSE * abs(scale))
    return Match(place, scale, low, high, paired, measured)


def _crossing(grid: Array, gap: Array, crossed: npt.NDArray[np.bool_], nearest: int) -> float:
    """The middle of the scales at which the outcomes are equal, or the nearest to equal."""
    i = np.flatnonzero(crossed)
    roots = grid[i] - gap[i] * (grid[i + 1] - grid[i]) / (gap[i + 1] - gap[i])
    roots = np.concatenate([roots, grid[gap == 0]])
    return float((roots.min() + roots.max()) / 2) if len(roots) else float(grid[nearest])


def jackknife_se(left: Array) -> Array:
    """The delete-group jackknife's standard error of values without each group, (groups, ...)."""
    groups = len(left)
    spread: Array = np.square(left - left.mean(axis=0)).sum(axis=0)
    return np.asarray(np.sqrt((groups - 1) / groups * spread))


@dataclass(frozen=True)
class Gap:
    """A line less CFG at the scale of equal outcome; `p` is two-sided. None without any error."""

    value: float
    se: float | None
    p: float | None


def gap_at(
    match: Match, outcome: Level, outcomes: Curve, judged: Level, curve: Curve, joint: bool
) -> Gap:
    """The difference of a measure at the scale of `match`.

    Its error includes that of the scale: without a group of samples, CFG has the same outcome
    at another scale, and so a line with the same outcome cannot win by a scale that fits by
    chance. `joint`: both measures leave out the same samples. Without replicates the line and
    CFG count as independent.
    """
    at = np.array([match.scale])
    value = judged.value - float(curve.at(at)[0, 0])
    slope, steep = curve.slope(match.scale), outcomes.slope(match.scale)
    per_outcome = slope / steep if steep else 0.0
    # Rounding alone is no difference, even if both lines have the same samples.
    rounding = ROUNDING * abs(judged.value)
    miss = math.hypot(curve.miss(at)[0], per_outcome * outcomes.miss(at)[0], rounding)
    groups = len(judged.left)
    if match.paired and groups > 1 and len(curve.draws) == 1 + groups:
        moved = outcome.left - outcomes.at(at)[1:, 0]
        moved = moved - (outcome.value - outcomes.at(at)[0, 0])
        shifts = np.clip(match.scale + moved / steep if steep else match.scale + 0 * moved,
                         match.low, match.high)  # fmt: skip
        still = judged.left - curve.at(at)[1:, 0]
        if joint and len(shifts) == groups:
            parts = [judged.left - np.diagonal(curve.at(shifts)[1:])]
        else:
            parts = [still, curve.at(shifts)[0]]
        se = math.hypot(*(float(jackknife_se(part)) for part in parts), miss)
        return Gap(value, se, two_sided(value, se, groups - 1))
    if judged.se is None or outcome.se is None:
        return Gap(value, None, None)
    of_scale = per_outcome * np.hypot(outcome.se, outcomes.se_at(at)[0])
    se = math.hypot(judged.se, curve.se_at(at)[0], of_scale, miss)
    if math.isnan(se):
        return Gap(value, None, None)
    return Gap(value, se, two_sided(value, se, None))
