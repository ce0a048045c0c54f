"""Consistency training on Gaussian data, whose discrete optimum has a closed form."""

from math import erf

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.data import Modes1d
from methods import CT, Batch, BatchRNG, Progress
from methods.consistency import smaller_sigma
from methods.ct import intervals_at, noise_pair
from tests.methods.gaussian import kept

DATA = Modes1d().spec
STD = 0.9
LAST = Progress(999, 1000)


def config_of(preset="modes1d-ict", **settings):
    config = CT.presets[preset].config
    return type(config).model_validate(config.model_dump() | settings)


def pairs(config, n=400_000, seed=0):
    t, r = noise_pair(config, LAST, BatchRNG(seed, n, 0, n))
    return t.double().numpy(), r.double().numpy()


def karras(intervals):
    """The grid of `intervals` + 1 levels from .002 to 80, ascending (EDM, eq. 5)."""
    i = np.arange(intervals + 1) / intervals
    return (0.002 ** (1 / 7) + i * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7


@pytest.mark.parametrize(
    ("q", "stage", "share"),
    [
        *((2.0, k, v) for k, v in enumerate((0.619, 0.756, 0.890, 0.948, 0.975, 0.988, 0.994))),
        (2.0, 8, 0.9985),
        (4.0, 1, 0.948),
        (4.0, 2, 0.988),
        (4.0, 3, 0.997),
    ],
)
def test_spread_that_the_chain_of_levels_keeps(q, stage, share):
    # The shares were computed apart from this code, for a standard deviation of .9 and t = 80.
    t, found = 80.0, 1.0
    while t > 1e-4:
        level = torch.tensor([t], dtype=torch.float64)
        r = float(smaller_sigma(level, stage + 1, q, 8.0, 1.0))
        found *= kept(t, r, STD)
        t = r
    assert found == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize(
    ("intervals", "share"), [(8, 0.723), (32, 0.922), (128, 0.980), (1280, 0.998)]
)
def test_spread_that_the_grid_of_ict_keeps(intervals, share):
    t, r = pairs(config_of(intervals=(intervals, intervals), p_mean=1.0, p_std=3.0))
    found, first = np.unique(t, return_index=True)
    np.testing.assert_allclose(found, karras(intervals)[1:], rtol=1e-6)  # every interval is drawn
    np.testing.assert_allclose(r[first], karras(intervals)[:-1], rtol=1e-6)
    assert np.prod(kept(found, r[first], STD)) == pytest.approx(share, abs=6e-4)


def test_intervals_of_ict_have_lognormal_probabilities():
    t, _ = pairs(config_of(intervals=(10, 10)))
    edges = [erf((np.log(level) + 1.1) / (2.0 * 2**0.5)) for level in karras(10)]
    wanted = np.diff(edges) / (edges[-1] - edges[0])
    found = np.bincount(np.searchsorted(karras(10), t * (1 - 1e-6)), minlength=11)[1:] / len(t)
    # Five standard errors.
    assert (np.abs(found - wanted) < 5 * np.sqrt(wanted / len(t))).all()


@pytest.mark.parametrize("total", [80, 400_000])
def test_number_of_intervals_doubles_as_published(total):
    period = total // (int(np.log2(1280 // 10)) + 1)
    for k in np.linspace(0, total - 1, 37).astype(int):
        wanted = min(10 * 2 ** (k // period), 1280)
        assert intervals_at(Progress(int(k), total), 10, 1280) == wanted


class Linear(nn.Module):
    """D(x; sigma) = gain x, with one gain per level of a grid; x itself at the lowest level."""

    def __init__(self, intervals):
        super().__init__()
        self.levels = torch.from_numpy(karras(intervals))
        self.gains = nn.Parameter(torch.ones(intervals + 1, dtype=torch.float64))

    def forward(self, x, sigma, labels, w_embed=None, *, form, dropout):
        assert form == "eval"
        index = torch.searchsorted(self.levels, sigma.double() * (1 - 1e-6))
        return self.gains[index][:, None] * x


def test_optimum_of_the_loss_of_ict_is_the_closed_form():
    n, intervals = 100_000, 8
    config = config_of(intervals=(intervals, intervals), p_mean=1.0, p_std=3.0, c_h=1e5)
    x0 = STD * torch.randn(n, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nets, batch = Linear(intervals), Batch(x0, torch.ones(n, 1))
    method = CT(config, DATA)

    def gradient(level, gain):
        with torch.no_grad():
            nets.gains[level] = gain
        loss = method.loss(nets, batch, LAST, BatchRNG(0, n, 0, n))["consistency"].mean()
        return torch.autograd.grad(loss, nets.gains)[0][level]

    # With so large a c_h the loss is quadratic: two gradients give the optimum of each level, given
    # the optima of those below.
    for level in range(1, intervals + 1):
        low, high = gradient(level, 0.0), gradient(level, 1.0)
        with torch.no_grad():
            nets.gains[level] = low / (low - high)
    top = float(nets.gains[-1].detach()) * (STD**2 + 80**2) ** 0.5 / STD
    assert top == pytest.approx(0.723, abs=0.02)  # about 10,000 rows per level


def test_loss_of_ict_against_the_formula():
    n = 64
    config = config_of(intervals=(10, 10), c_h=0.3)
    x0 = torch.randn(n, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nets = Linear(10)
    with torch.no_grad():
        nets.gains.copy_(torch.linspace(1, 0.3, 11))
    loss = CT(config, DATA).loss(nets, Batch(x0, torch.ones(n, 1)), LAST, BatchRNG(0, n, 0, n))
    rng = BatchRNG(0, n, 0, n)
    t, r = (v.double()[:, None] for v in noise_pair(config, LAST, rng))
    eps = rng.randn(1)
    gains = np.linspace(1, 0.3, 11)
    at_t, at_r = (torch.from_numpy(np.interp(v, karras(10), gains)) for v in (t, r))
    delta = at_t * (x0 + t * eps) - at_r * (x0 + r * eps)
    wanted = ((delta.square() + 0.3**2).sqrt() - 0.3) / (t - r)
    torch.testing.assert_close(loss["consistency"].detach(), wanted[:, 0], rtol=1e-4, atol=1e-6)


def test_intervals_that_shrink_are_refused():
    with pytest.raises(ValidationError, match="intervals must ascend, got 20 and 10"):
        config_of(intervals=(20, 10))
