"""Balls that reach each sample's k-th nearest other sample, and which samples lie in them.

Every comparison is decided as if each squared distance were `distances.exact`: float32 products
with a bounded error decide most pairs, the others are evaluated exactly. So block sizes, the
device and its rounding change time and memory, never the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metrics.distances import (
    Bounds,
    Screen,
    distinct,
    exact,
    full_precision,
    group_minima,
    near,
    slices,
)

STRIP = 1024
"""Rows of a block of pairs."""

CHUNK = 4096
"""Columns of a block of pairs; at least its rows."""


def check_features(x: Tensor) -> None:
    """ValueError unless x is a matrix (n, D) of finite numbers with D >= 1."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features must have shape (n, D), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"features must be floating-point numbers, got {x.dtype}")
    # Larger features could overflow float64 when squared and summed.
    if len(x) and not all(float(bound.abs()) < 2.0**400 for bound in torch.aminmax(x)):
        raise ValueError("some features are NaN or infinite")


def ball_radii(x: Tensor, k: int, block: tuple[int, int] = (STRIP, CHUNK)) -> Tensor:
    """Squared distance (n,), float64, of each row of x (n, D) to its k-th nearest other row.

    ValueError if there are at most k rows, or features are not finite.
    """
    check_features(x)
    if k < 1 or len(x) <= k:
        raise ValueError(f"balls of k = {k} need k >= 1 and more than k samples, got {len(x)}")
    # More than k copies of a row do not change a k-th neighbour; all of them would tie.
    same = distinct(x)
    kept = torch.nonzero(same.copies <= k)[:, 0]
    if len(kept) < len(x):
        radii = torch.empty(len(x), dtype=torch.float64, device=x.device)
        radii[kept] = _radii(x[kept], k, *block)
        return radii[same.rows[same.places]]
    return _radii(x, k, *block)


def _radii(x: Tensor, k: int, strip: int, chunk: int) -> Tensor:
    with full_precision(x.device):
        search = _Search(x, k)
        n = len(search.limits)
        for rows in slices(0, n, strip):
            for columns in slices(rows.start, n, chunk):
                block = search.screen.lower(rows, columns)
                if columns.start == rows.start:
                    block.diagonal().fill_(torch.inf)
                search.update(rows, columns, block)
                # By symmetry; the square on the diagonal already holds both orders of its pairs.
                rest = slice(max(columns.start, rows.stop), columns.stop)
                if rest.start < rest.stop:
                    search.update(rest, rows, block[:, rest.start - columns.start :].T)
            search.prune()
        return _kth(x, search.found, k)


class _Search:
    """Collects every pair that may be among the k nearest of its row.

    `best` (n, k) are upper bounds of the distances to k different rows: a pair with a larger
    distance than all of them is ruled out.
    """

    def __init__(self, x: Tensor, k: int) -> None:
        self.screen = Screen(x, x)
        self.norms = self.screen.x.narrow_norms
        self.best = torch.full((len(self.norms), k), torch.inf, device=x.device)
        self._largest = torch.finfo(torch.float32).max
        none = torch.empty(0, dtype=torch.int64, device=x.device)
        self.found = Bounds(none, none, none.double(), none.double())
        self._new: list[Bounds] = []

    @property
    def limits(self) -> Tensor:
        # Below infinity, the distance of padding.
        return self.best.amax(1).clamp(max=self._largest)

    def update(self, rows: slice, columns: slice, block: Tensor) -> None:
        """Search a block of lower bounds (rows, columns)."""
        minima = group_minima(block)
        # Without rounding, twice the factor would suffice; this sum is rounded.
        norms = group_minima(-self.norms[None, columns]).neg() + self.norms[rows, None]
        uppers = minima + 3 * self.screen.factor * norms + 8 * self.screen.underflow
        before = self.best[rows].clone()
        self._improve(rows, before, uppers)
        i, j, low = near(block, self.limits[rows], minima)
        i, j = i + rows.start, j + columns.start
        pairs = Bounds(i, j, low.double(), self.screen.upper(i, j, low))
        if len(i) > block.numel() // 16:
            # These rows are too close to each other for float32.
            pairs = self.screen.sharper(rows, columns, i, j)
            table = torch.full(block.shape, torch.inf, device=block.device)
            above = torch.full_like(pairs.high, torch.inf).float()
            table[i - rows.start, j - columns.start] = torch.nextafter(pairs.high.float(), above)
            self._improve(rows, before, table)
            pairs = pairs.where(pairs.low <= self.limits[i])
        self._new.append(pairs)

    def _improve(self, rows: slice, before: Tensor, uppers: Tensor) -> None:
        k = before.shape[1]
        self.best[rows] = torch.cat([before, uppers], 1).topk(k, largest=False, sorted=False).values

    def prune(self) -> None:
        """Drop pairs that later ones ruled out."""
        parts = zip(self.found, *self._new, strict=True)
        found = Bounds(*(torch.cat(part) for part in parts))
        self.found = found.where(found.low <= self.limits[found.i])
        self._new = []


def _kth(x: Tensor, pairs: Bounds, k: int) -> Tensor:
    """The k-th smallest exact distance (n,) per row; `pairs` holds at least k pairs of each row."""
    n = len(x)
    least = _at(pairs.i, pairs.low, n, k - 1)
    most = _at(pairs.i, pairs.high, n, k - 1)
    nearer = pairs.high < least[pairs.i]
    rank = k - 1 - torch.bincount(pairs.i[nearer], minlength=n)
    pairs = pairs.where(~nearer & (pairs.low <= most[pairs.i]))
    return _at(pairs.i, exact(x, pairs.i, x, pairs.j), n, rank)


def _at(i: Tensor, values: Tensor, n: int, rank: Tensor | int) -> Tensor:
    """The value (n,) at the 0-based `rank` of the sorted values of each row i."""
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(i[order], stable=True)]
    counts = torch.bincount(i, minlength=n)
    return values[order[counts.cumsum(0) - counts + rank]]


class Memberships(NamedTuple):
    """Which samples lie in balls of the other set.

    `balls` (m,) int64: number of real balls that hold each generated sample; `covered` (n,) bool:
    real balls that hold a generated sample; `recalled` (n,) bool: real samples in a generated ball.
    """

    balls: Tensor
    covered: Tensor
    recalled: Tensor


def memberships(
    real: Tensor,
    fake: Tensor,
    real_radii: Tensor,
    fake_radii: Tensor,
    closed: bool,
    block: tuple[int, int] = (STRIP, CHUNK),
) -> Memberships:
    """Find which rows of real (n, D) and fake (m, D) lie in balls of the other set.

    The radii are squared, from `ball_radii`; a row on an edge is inside if the balls are `closed`.
    Copies of a row have its radius and lie in the same balls.
    """
    for x in (real, fake):
        check_features(x)
    same_real, same_fake = distinct(real), distinct(fake)
    apart_real, apart_fake = (
        x if len(same.rows) == len(x) else x[same.rows]
        for x, same in ((real, same_real), (fake, same_fake))
    )
    radii = real_radii[same_real.rows], fake_radii[same_fake.rows]
    balls = torch.zeros(len(apart_fake), dtype=torch.int64, device=real.device)
    covered, recalled = torch.zeros(2, len(apart_real), dtype=torch.bool, device=real.device)
    counts = same_real.counts
    with full_precision(real.device):
        judge = _Judge(apart_real, apart_fake, radii, closed)
        for rows in slices(0, len(judge.limits[0]), block[0]):
            for columns in slices(0, len(judge.limits[1]), block[1]):
                low = judge.screen.lower(rows, columns)
                i, j = judge.in_real_balls(rows, columns, low)
                balls.index_add_(0, j, counts[i])
                covered[i] = True
                i, _ = judge.in_fake_balls(rows, columns, low)
                recalled[i] = True
    return Memberships(
        balls[same_fake.places], covered[same_real.places], recalled[same_real.places]
    )


class _Judge:
    """Finds the pairs of a block whose distance is within the radius of one of the two rows."""

    def __init__(self, real: Tensor, fake: Tensor, radii: tuple[Tensor, Tensor], closed: bool):
        self.screen = Screen(real, fake)
        self._closed = closed
        self._radii = radii
        self.limits = [
            self._limit(r, side.norms)
            for r, side in zip(radii, (self.screen.x, self.screen.y), strict=True)
        ]

    def _limit(self, radii: Tensor, norms: Tensor) -> Tensor:
        """Radii rounded up to float32; -inf for padding, below every distance."""
        limits = torch.full((len(norms),), -torch.inf, device=radii.device)
        scaled = (radii * self.screen.unit).float()
        limits[: len(radii)] = torch.nextafter(scaled, torch.full_like(scaled, torch.inf))
        # Below infinity, the distance of padding.
        return limits.clamp(max=torch.finfo(torch.float32).max)

    def in_real_balls(self, rows: slice, columns: slice, block: Tensor) -> tuple[Tensor, Tensor]:
        i, j, low = near(block, self.limits[0][rows], group_minima(block))
        i, j = i + rows.start, j + columns.start
        return self._inside(rows, columns, i, j, low, self._radii[0][i])

    def in_fake_balls(self, rows: slice, columns: slice, block: Tensor) -> tuple[Tensor, Tensor]:
        j, i, low = near(block.T, self.limits[1][columns], group_minima(block.T))
        i, j = i + rows.start, j + columns.start
        return self._inside(rows, columns, i, j, low, self._radii[1][j])

    def _within(self, squared: Tensor, radii: Tensor) -> Tensor:
        return squared <= radii if self._closed else squared < radii

    def _inside(
        self, rows: slice, columns: slice, i: Tensor, j: Tensor, low: Tensor, radii: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The pairs (i, j) of a block that are within their squared radii (pairs,)."""
        inside = self._within(self.screen.upper(i, j, low), radii * self.screen.unit)
        open_ = torch.nonzero(~inside)[:, 0]
        if len(open_) > (rows.stop - rows.start) * (columns.stop - columns.start) // 64:
            # These rows are too close to each other for float32.
            pairs = self.screen.sharper(rows, columns, i[open_], j[open_])
            scaled = radii[open_] * self.screen.unit
            sure = self._within(pairs.high, scaled)
            inside[open_] = sure
            open_ = open_[~sure & (pairs.low <= scaled)]
        squared = exact(self.screen.x.source, i[open_], self.screen.y.source, j[open_])
        inside[open_] = self._within(squared, radii[open_])
        return i[inside], j[inside]
