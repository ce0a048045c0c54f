"""Squared distances between rows: exact ones of given pairs, and proven bounds for all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 32
"""Entries that share a minimum; the rows of a screen are padded to a multiple of it."""

EXACT_BATCH = {"cpu": 2**17}
"""Values evaluated at once, by device: as many as fit into the cache of a CPU."""

OTHER_BATCH = 2**24
"""The same for other devices, which are faster with more."""

PREPARED_ROWS = 64
"""Rows centred at once; more would not fit into the cache and take several times as long."""


class Bounds(NamedTuple):
    """Pairs `i`, `j` of rows and bounds on their squared distances, (pairs,) each, in float64."""

    i: Tensor
    j: Tensor
    low: Tensor
    high: Tensor

    def where(self, mask: Tensor) -> Bounds:
        """The pairs that a mask (pairs,) selects."""
        return Bounds(*(part[mask] for part in self))


def exact(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """Squared distances (pairs,) of x[i] and y[j] in float64, bit for bit equal for equal rows.

    One half of the D squares is added to the other until one is left. So the order of additions
    depends only on D: not on the batch, the order of the two rows, the device or the threads.
    """
    found = torch.empty(len(i), dtype=torch.float64, device=x.device)
    dim = x.shape[1]
    step = max(1, EXACT_BATCH.get(x.device.type, OTHER_BATCH) // dim)
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        squares = x[i[part]].double()
        squares -= y[j[part]]
        squares *= squares
        width = dim
        while width > 1:
            half = width // 2
            squares[:, :half] += squares[:, width - half : width]
            width -= half
        found[part] = squares[:, 0]
    return found


class Distinct(NamedTuple):
    """The distinct rows of a set: row i equals row rows[places[i]]; (distinct,) and (n,).

    `copies` (n,) is the number of earlier rows that equal each row.
    """

    rows: Tensor
    places: Tensor
    copies: Tensor

    @property
    def counts(self) -> Tensor:
        """How often each distinct row occurs, (distinct,)."""
        return torch.bincount(self.places, minlength=len(self.rows))


def distinct(x: Tensor) -> Distinct:
    """Find equal rows of x (n, D) by a hash of their bits, then verify that they are equal."""
    everyone = torch.arange(len(x), device=x.device)
    # A few columns distinguish nearly all rows; different hashes need no verification.
    columns = torch.unique(torch.linspace(0, x.shape[1] - 1, 64, device=x.device).long())
    first = _earliest(_hashes(x[:, columns]), everyone)
    alike = torch.nonzero(torch.bincount(first, minlength=len(x))[first] > 1)[:, 0]
    hashes = [_hashes(x[alike[part]]) for part in slices(0, len(alike), 1024)]
    if hashes:
        first[alike] = _earliest(torch.cat(hashes), alike)
    later = torch.nonzero(first != everyone)[:, 0]
    for part in slices(0, len(later), 1024):
        some = later[part]
        # Different rows with equal hashes remain distinct; none are expected among 2^64 hashes.
        equal = (x[some] == x[first[some]]).all(1)
        first[some] = torch.where(equal, first[some], some)
    rows, places = torch.unique(first, return_inverse=True)
    order = torch.argsort(places, stable=True)
    counts = torch.bincount(places, minlength=len(rows))
    copies = torch.empty_like(places)
    copies[order] = everyone - (counts.cumsum(0) - counts)[places[order]]
    return Distinct(rows, places, copies)


def _hashes(x: Tensor) -> Tensor:
    """A hash (n,) int64 of the bits of each row."""
    generator = torch.Generator(x.device).manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator, device=x.device)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return (x.contiguous().view(bits) * weights).sum(1)


def _earliest(keys: Tensor, names: Tensor) -> Tensor:
    """The smallest name (n,) among those with an equal key (n,)."""
    _, place = torch.unique(keys, return_inverse=True)
    least = torch.full_like(names, torch.iinfo(names.dtype).max)
    return least.scatter_reduce(0, place, names, "amin")[place]


def slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step`."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32: no TF32, no bfloat16, no autocast, no gradients."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Side:
    """The scaled and centred rows of one set, padded with rows that are far from all others."""

    def __init__(self, source: Tensor, origin: Tensor, scale: float) -> None:
        self.source = source
        padded = -(-len(source) // GROUP) * GROUP
        self.rows = torch.zeros(padded, source.shape[1], device=source.device)
        self.norms = torch.zeros(padded, dtype=torch.float64, device=source.device)
        # Subtracting in float32 rounds each difference once, just as storing it would.
        wide = torch.promote_types(source.dtype, torch.float32)
        origin = origin.to(wide)
        for part in slices(0, len(source), PREPARED_ROWS):
            rows = self.rows[part]
            rows.copy_((source[part].to(wide) * scale).sub_(origin))
            self.norms[part] = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        self.narrow_norms = self.norms.float()


def _mean(x: Tensor, scale: float) -> Tensor:
    """The approximate mean (D,) of the scaled rows of x (n, D), rounded to float32."""
    sums = []
    for part in slices(0, len(x), 4096):
        rows = x[part] if x.element_size() > 2 else x[part].float()
        sums.append(torch.full((len(rows),), scale, dtype=rows.dtype, device=x.device) @ rows)
    return (torch.stack(sums).double().sum(0) / len(x)).float().double()


class Screen:
    """Bounds on squared distances of all pairs of rows of x (n, D) and y (m, D), by products.

    All are in units of 1 / `unit`, a power of two that keeps squares in the range of float32. With
    u = 2^-24 and S = |x|^2 + |y|^2 of the centred rows, |x|^2 + |y|^2 - 2 x.y as one sum of D + 1
    terms in any order has an error of at most (D + 1) 2u S. Rounding the rows to float32 changes
    the distance by at most 4u S; rounding the norms and their sum changes it by 2u S. So
    (D + 16) 2u S covers all of it except underflow, with the same term for float64 on top, which
    covers the rounding of an `exact` distance.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        sets = [x] if y is x else [x, y]
        # A common shift does not change distances, and the error grows with the norms.
        largest = max(float(bound.abs()) for z in sets for bound in torch.aminmax(z))
        # The factor itself must be a float32 number.
        scale = 2.0 ** -max(-120, math.frexp(largest)[1] + 1)
        self._origin = torch.stack([_mean(z, scale) for z in sets]).mean(0)
        self.unit = scale * scale
        self._scale = scale
        self.x = _Side(x, self._origin, scale)
        self.y = self.x if y is x else _Side(y, self._origin, scale)
        self._terms = x.shape[1] + 16
        eps = self._terms * (torch.finfo(torch.float32).eps + torch.finfo(torch.float64).eps)
        self.factor = eps / (1 - eps)
        # Sums of squares are at most D; underflow may cost each of their terms this much.
        self.underflow = self._terms * 2.0**-120
        self._x_low, self._y_low = (self._low(side) for side in (self.x, self.y))
        self._buffer = torch.empty(0, device=x.device)

    def _low(self, side: _Side) -> Tensor:
        low = side.norms * (1 - self.factor) - self.underflow
        low[len(side.source) :] = math.inf
        return low.float()

    def lower(self, rows: slice, columns: slice) -> Tensor:
        """Lower bounds: a block (rows, columns) in float32, overwritten by the next call."""
        n, m = rows.stop - rows.start, columns.stop - columns.start
        if len(self._buffer) < n * m:
            self._buffer = torch.empty(n * m, device=self._buffer.device)
        block = self._buffer[: n * m].view(n, m)
        torch.add(self._x_low[rows, None], self._y_low[None, columns], out=block)
        return block.addmm_(self.x.rows[rows], self.y.rows[columns].T, alpha=-2)

    def upper(self, i: Tensor, j: Tensor, low: Tensor) -> Tensor:
        """Upper bounds (pairs,) in float64 of pairs with the lower bounds `low`."""
        norms = self.x.norms[i] + self.y.norms[j]
        return low.double() + 2 * self.factor * norms + 4 * self.underflow

    def sharper(self, rows: slice, columns: slice, i: Tensor, j: Tensor) -> Bounds:
        """Bounds on many pairs of one block, 2^29 times tighter, by a product in float64."""
        x, y = (
            side.source[part].double() * self._scale - self._origin
            for side, part in ((self.x, rows), (self.y, columns))
        )
        a, b = i - rows.start, j - columns.start
        norms = x.square().sum(1)[a] + y.square().sum(1)[b]
        middle = norms - 2 * (x @ y.T)[a, b]
        slack = 2 * self._terms * torch.finfo(torch.float64).eps * norms + 2.0**-900
        return Bounds(i, j, middle - slack, middle + slack)


def group_minima(block: Tensor) -> Tensor:
    """Minima (n, G) of a block (n, GROUP G): one for entries g, g + G, g + 2G, ... of a row."""
    if block.stride(0) < block.stride(1):
        # For a transposed block this order is ten times as fast.
        return block.T.view(GROUP, -1, len(block)).amin(0).T.contiguous()
    return block.view(len(block), GROUP, -1).amin(1)


def near(block: Tensor, limits: Tensor, minima: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of a block (n, m) that are at most the limits (n,) of their rows.

    Few are expected, so only groups whose minimum is within the limit are searched.
    """
    row, group = torch.nonzero(minima <= limits[:, None], as_tuple=True)
    groups = minima.shape[1]
    column = group[:, None] + groups * torch.arange(GROUP, device=block.device)
    values = block[row[:, None], column]
    found = values <= limits[row, None]
    return row[torch.nonzero(found)[:, 0]], column[found], values[found]
