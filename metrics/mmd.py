"""Squared MMDs, from sums of kernels over all pairs of samples, in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from metrics.base import Array
from metrics.errors import Groups
from metrics.memo import kept, remember

Features = npt.NDArray[np.float32]

BLOCK_ROWS = 256
DOUBLE_DIM = 256
"""Up to this dimension products are in float64: they are not the main cost there."""


class Kernel(Protocol):
    """A positive definite kernel of inner products; hashable, so that sums can be remembered."""

    def __call__(self, products: Array, x_squares: Array, y_squares: Array) -> Array:
        """Kernel (b, m) of inner products (b, m) and squared norms (b,) and (m,); in place."""


@dataclass(frozen=True)
class PolynomialKernel:
    """(x.y / dim + 1)^3: the kernel of KID (Binkowski et al. 2018, section 4)."""

    dim: int

    def __call__(self, products: Array, x_squares: Array, y_squares: Array) -> Array:
        """Overwrites `products`; the norms are not used."""
        products /= self.dim
        products += 1.0
        cube = products * products
        cube *= products
        return cube


@dataclass(frozen=True)
class GaussianKernel:
    """exp(-|x - y|^2 / (2 sigma^2)) - 1; the 1 cancels in an MMD and would cost digits."""

    sigma: float

    def __call__(self, products: Array, x_squares: Array, y_squares: Array) -> Array:
        """Overwrites `products`."""
        products *= -2.0
        products += x_squares[:, None]
        products += y_squares[None, :]
        # Rounding may make the squared distance of equal samples negative.
        np.maximum(products, 0.0, out=products)
        products /= -2.0 * self.sigma**2
        return np.asarray(np.expm1(products, out=products))


class KernelSums(NamedTuple):
    """Sums of kernels: `rows[i, g]` of k(x_i, y_j) over j in group g, `columns[j]` over all i.

    Within one set they leave out i = j, and `diagonal[i]` = k(x_i, x_i); between two sets it is 0.
    Summed together, the kernel of a far sample with itself would cost the digits of all others.
    """

    rows: Array
    columns: Array
    diagonal: Array


@remember(8)
@kept("kernel", KernelSums)
def kernel_sums(
    x: Features, y: Features, groups: Groups, kernel: Kernel, block_rows: int = BLOCK_ROWS
) -> KernelSums:
    """All pairs of x (n, D) and y (m, D) with the groups (m,) of y; pass x twice for one set.

    Memory is that of `block_rows` x m kernels. Within one set each pair is evaluated once. Above
    `DOUBLE_DIM` dimensions products are float32, whose rounding averages out. Sums are float64:
    the block size changes them by rounding only.

    ValueError if dimensions differ, or kernels overflow.
    """
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or groups.shape != y.shape[:1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} do not compare")
    within = x is y
    dtype: type[np.floating] = np.float64 if x.shape[1] <= DOUBLE_DIM else np.float32
    left: npt.NDArray[np.floating] = x.astype(dtype, copy=False)
    right: npt.NDArray[np.floating] = left if within else y.astype(dtype, copy=False)
    x_squares, y_squares = _squares(left), _squares(right)
    member = np.zeros((len(y), int(groups.max()) + 1))
    member[np.arange(len(y)), groups] = 1.0
    rows = np.zeros((len(x), member.shape[1]))
    columns, diagonal = np.zeros(len(y)), np.zeros(len(x))
    # An overflow is reported once, below.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), block_rows):
            stop = min(start + block_rows, len(x))
            first = start if within else 0
            products = (left[start:stop] @ right[first:].T).astype(np.float64, copy=False)
            values = kernel(products, x_squares[start:stop], y_squares[first:])
            if within:
                own = np.einsum("ii->i", values[:, : stop - start])
                diagonal[start:stop] = own
                own[:] = 0.0
            rows[start:stop] += values @ member[first:]
            columns[first:] += values.sum(axis=0)
            if within:
                rows[stop:] += values[:, stop - start :].T @ member[start:stop]
        if within:
            columns = rows.sum(axis=1)
    if not (np.isfinite(rows).all() and np.isfinite(diagonal).all()):
        raise ValueError("the kernel overflows: did these samples diverge?")
    return KernelSums(rows, columns, diagonal)


def _squares(x: npt.NDArray[np.floating]) -> Array:
    squares: Array = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return squares


class Mmd(NamedTuple):
    """Squared maximum mean discrepancy, its error from sampling each set, replicates (G,)."""

    value: float
    fake_se: float
    real_se: float
    replicates: Array


def squared_mmd(
    real: Features,
    fake: Features,
    real_groups: Groups,
    fake_groups: Groups,
    kernel: Kernel,
    *,
    unbiased: bool,
    block_rows: int = BLOCK_ROWS,
) -> Mmd:
    """Squared MMD of all pairs of real (n, D) and generated (m, D) samples (Gretton et al. 2012).

    `unbiased` is the U-statistic (lemma 6, 0 on average for equal distributions), without pairs of
    a sample with itself; else the V-statistic (eq. 5, >= 0), with them. The standard errors are
    those of the Hajek projection: twice the deviation of a sample's mean kernel with its own set
    minus that with the other one, over root n (Hoeffding 1948). Near equal distributions they are
    too large. The replicates leave out generated groups. The real set's own sums are remembered.

    ValueError for fewer than 2 samples per set.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise ValueError(f"an MMD needs 2 samples per set, got {n} real and {m} generated")
    among_real = kernel_sums(real, real, real_groups, kernel, block_rows)
    among_fake = kernel_sums(fake, fake, fake_groups, kernel, block_rows)
    between = kernel_sums(real, fake, fake_groups, kernel, block_rows)
    if real is fake:  # two sets that are equal, whose pairs include i = j
        rows = between.rows.copy()
        rows[np.arange(n), fake_groups] += between.diagonal
        between = KernelSums(rows, between.columns + between.diagonal, between.diagonal)
    own = float(unbiased)  # 1 where pairs of a sample with itself are left out
    selves = np.bincount(fake_groups, weights=(1 - own) * among_fake.diagonal)

    # First of all pairs, then of those that remain without each group.
    sizes = np.bincount(fake_groups)
    counts = np.concatenate([[m], m - sizes])
    block = np.stack(
        [np.bincount(fake_groups, weights=column) for column in among_fake.rows.T], axis=1
    )
    block += np.diag(selves)
    crossed = between.rows.sum(axis=0)
    # Sums over what remains: a far sample in the group left out would cost their digits.
    every = np.arange(len(sizes))
    remaining = [every, *(np.delete(every, g) for g in every)]
    total = np.array([block[np.ix_(k, k)].sum() for k in remaining])
    cross = np.array([crossed[k].sum() for k in remaining])
    real_sum = among_real.columns.sum() + (1 - own) * among_real.diagonal.sum()
    within_real = real_sum / (n * (n - own))
    with np.errstate(divide="ignore", invalid="ignore"):  # of 2 samples, 1 or none remains
        values = within_real + total / (counts * (counts - own)) - 2 * cross / (n * counts)

    def standard_error(among: KernelSums, others: Array, size: int, other_size: int) -> float:
        inside = (among.columns + (1 - own) * among.diagonal) / (size - own)
        return float(2 * np.std(inside - others / other_size, ddof=1) / np.sqrt(size))

    return Mmd(
        float(values[0]),
        standard_error(among_fake, between.columns, m, n),
        standard_error(among_real, between.rows.sum(axis=1), n, m),
        values[1:],
    )
