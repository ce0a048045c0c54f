import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from metrics.distances import Screen, distinct, exact, full_precision, group_minima, near


def normal(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 1001])
def test_exact_distances_agree_with_rational_arithmetic(dim):
    x, y = normal(5, dim), normal(5, dim, 1) * 100
    i = torch.arange(5)
    for found, a, b in zip(exact(x, i, y, i).tolist(), x.tolist(), y.tolist(), strict=True):
        true = sum((Fraction(p) - Fraction(q)) ** 2 for p, q in zip(a, b, strict=True))
        # Each square is rounded three times and goes through log2(D) additions.
        assert abs(Fraction(found) - true) <= true * Fraction(4 + math.ceil(math.log2(dim)), 2**53)


def test_exact_distances_depend_only_on_the_two_rows():
    # With this D a batch holds 2 pairs; the last of 501 pairs is a batch of one.
    x = normal(40, 60_000)
    i, j = torch.randint(0, 40, (2, 501), generator=torch.Generator().manual_seed(0))
    found = exact(x, i, x, j)
    assert torch.equal(exact(x, j, x, i), found)
    assert torch.equal(exact(x.flip(0), 39 - i.flip(0), x, j.flip(0)).flip(0), found)
    assert exact(x, i[:1], x, j[:1]) == found[0]
    assert (found[i == j] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_equal_rows_are_found(dtype):
    x = normal(2500, 100).to(dtype)
    # Copies of three rows, and rows that differ only in a column that the first hash skips.
    x[[5, 1700, 2400]] = x[3].clone()
    x[2] = x[1].clone()
    x[20:1500] = x[20].clone()
    x[30, 2] += 1
    same = distinct(x)
    expected, places, counts = np.unique(x.numpy(), axis=0, return_inverse=True, return_counts=True)
    assert len(same.rows) == len(expected) < 1100
    assert torch.equal(x[same.rows[same.places]], x)
    assert np.array_equal(same.counts[same.places].numpy(), counts[places])
    assert same.copies[[1, 2, 3, 5, 1700, 2400]].tolist() == [0, 1, 0, 1, 2, 3]
    assert same.copies.max() == 1478


SETS = {
    "normal": (normal(64, 50), normal(96, 50, 1)),
    "offset": (normal(64, 50) + 1e3, normal(96, 50, 1) + 1e3),
    "tight": (1e-4 * normal(64, 50) + torch.arange(64)[:, None] % 2, 1e-4 * normal(96, 50, 1)),
    "outlier": (normal(64, 50) * 10.0 ** (torch.arange(64)[:, None] % 9), normal(96, 50, 1)),
    "large": (normal(64, 50) * 1e37, normal(96, 50, 1) * 1e37),
    "small": (normal(64, 50) * 1e-37, normal(96, 50, 1) * 1e-40),
    "half": (normal(64, 50).half(), normal(96, 50, 1).half()),
    "double": (normal(64, 50).double() * 1e100, normal(96, 50, 1).double() * 1e100),
    "wide": (normal(64, 20_000), normal(96, 20_000, 1)),
}


@pytest.mark.parametrize("name", SETS)
def test_bounds_hold(name):
    x, y = SETS[name]
    i, j = (
        part.flatten() for part in torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    )
    with full_precision(x.device):
        screen = Screen(x, y)
        low = screen.lower(slice(0, 64), slice(0, 96)).flatten()
        high = screen.upper(i, j, low)
        sharp = screen.sharper(slice(0, 64), slice(0, 96), i, j)
    true = exact(x, i, y, j) * screen.unit
    assert (low <= true).all()
    assert (true <= high).all()
    assert (sharp.low <= true).all()
    assert (true <= sharp.high).all()
    norms = screen.x.norms[i] + screen.y.norms[j]
    # The bounds are also tight.
    assert ((high - low) <= 4e-7 * (x.shape[1] + 16) * norms + 1e-30).all()
    assert ((sharp.high - sharp.low) <= 1e-15 * (x.shape[1] + 16) * norms + 1e-200).all()


def test_lowered_precision_is_disabled_and_restored():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("transposed", [False, True])
def test_entries_within_limits(transposed):
    block = normal(64, 160)
    limits = torch.linspace(-3, 1, 160 if transposed else 64)
    if transposed:
        block = block[:, 64:].T
        limits = limits[64:]
    row, column, values = near(block, limits, group_minima(block))
    expected = torch.nonzero(block <= limits[:, None])
    found = torch.stack([row, column], 1)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.equal(values, block[row, column])
    assert torch.equal(group_minima(block).amin(1), block.amin(1))
