"""Solvers and grids against closed forms for Gaussian data."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from methods import Guidance, Oracle, SampleRNG
from methods.rules import make_rule
from methods.rules.base import Networks
from methods.rules.dry_run import evaluations
from methods.rules.needs import cannot_follow
from methods.rules.trajectory import sample_guided
from methods.samplers import GRIDS, SOLVERS, Sampler, sample_heun, sample_single

LOW, HIGH, RHO = 0.02, 10.0, 7.0
MEAN, STD = 0.7, 0.5
SINGLE = [solver for solver in SOLVERS if solver != "heun"]


def denoise(x, sigma):
    """E[x0 | x] of N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact(x, sigma, sigma_next):
    """The solution of the probability flow ODE."""
    shrink = math.sqrt((STD**2 + sigma_next**2) / (STD**2 + sigma**2))
    return MEAN + shrink * (x - MEAN)


def no_draw():
    raise AssertionError("a deterministic solver draws nothing")


def solved(solver, sigmas, x):
    if solver == "heun":
        return sample_heun(denoise, x, sigmas)
    return sample_single(solver, denoise, x, sigmas, draw=no_draw)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_error_falls_with_the_order_of_the_solver(solver, order, grid):
    x = torch.tensor([[3.0], [-8.0]], dtype=torch.float64)
    errors = []
    for steps in (64, 128, 256):
        sigmas = Sampler(grid=grid).sigmas(steps + 1, 0.2, HIGH, RHO)[:-1]  # without the step to 0
        errors.append(float((solved(solver, sigmas, x) - exact(x, HIGH, 0.2)).abs().max()))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates == pytest.approx([order, order], abs=0.25)


def test_dpmpp_2m_is_its_published_update():
    """k-diffusion's form with lambda = -log sigma, in few lines of numpy."""
    sigmas = Sampler().sigmas(8, LOW, HIGH, RHO)
    x, old, levels = 3.0, None, sigmas.tolist()
    for i in range(len(levels) - 1):
        d = denoise(x, levels[i])
        if levels[i + 1] == 0:
            x = d
            continue
        h = -math.log(levels[i + 1] / levels[i])
        if old is None:
            x = levels[i + 1] / levels[i] * x - math.expm1(-h) * d
        else:
            r = -math.log(levels[i] / levels[i - 1]) / h
            x = levels[i + 1] / levels[i] * x - math.expm1(-h) * (
                (1 + 1 / (2 * r)) * d - old / (2 * r)
            )
        old = d
    start = torch.tensor([[3.0]], dtype=torch.float64)
    assert float(solved("dpmpp-2m", sigmas, start)) == pytest.approx(x, rel=1e-12)


def test_euler_is_ddim():
    """DDIM without noise keeps the predicted noise: x' = D + sigma' eps."""
    sigmas = Sampler().sigmas(6, LOW, HIGH, RHO)
    x = 3.0
    for a, b in pairwise(sigmas.tolist()):
        d = denoise(x, a)
        x = d + b * (x - d) / a
    start = torch.tensor([[3.0]], dtype=torch.float64)
    assert float(solved("euler", sigmas, start)) == pytest.approx(x, rel=1e-12)


def sde_moments(sigmas):
    """Mean and variance of "sde" from x = 0 for Gaussian data, step by step."""
    mean, variance = 0.0, 0.0
    for a, b in pairwise(sigmas):
        shrink = STD**2 / (STD**2 + a**2)
        slope = shrink + (b / a) ** 2 * (1 - shrink)
        mean = MEAN + slope * (mean - MEAN)
        variance = slope**2 * variance + b**2 * (1 - (b / a) ** 2)
    return mean, variance


def test_sde_has_the_moments_of_its_recursion_and_converges_to_the_data():
    draws = torch.Generator().manual_seed(0)
    n = 40_000

    def draw():
        return torch.randn(n, 1, generator=draws, dtype=torch.float64)

    sigmas = Sampler().sigmas(12, LOW, HIGH, RHO)
    x = sample_single("sde", denoise, torch.zeros(n, 1), sigmas, draw=draw)
    mean, variance = sde_moments(sigmas.tolist())
    assert float(x.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    errors = []
    for steps in (100, 200, 400):
        levels = Sampler().sigmas(steps, 1e-4, 1000.0, RHO).tolist()
        errors.append(abs(sde_moments(levels)[1] - STD**2))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_descend_between_both_ends_and_end_at_zero(grid):
    sigmas = Sampler(grid=grid).sigmas(18, 0.002, 80.0, 7.0)
    assert len(sigmas) == 19
    assert (sigmas.diff() < 0).all()
    assert sigmas[[0, 17, 18]].tolist() == pytest.approx([80.0, 0.002, 0.0])
    assert Sampler(grid=grid).sigmas(1, 0.002, 80.0, 7.0).tolist() == [80.0, 0.0]


def test_linear_grid_has_the_signal_of_the_linear_schedule():
    """alpha_bar(t) = exp(-int beta) for beta(t) = 0.1 + 19.9 t, integrated numerically."""
    sigmas = Sampler(grid="linear").sigmas(9, 0.05, 20.0, 7.0)[:-1]
    t = np.linspace(0, 1, 200_001)
    alpha_bar = np.exp(-np.concatenate([[0], np.cumsum(0.1 + 19.9 * (t[1:] + t[:-1]) / 2) * t[1]]))
    level = np.sqrt(1 / alpha_bar - 1)
    times = np.interp(sigmas.numpy(), level, t)
    assert np.diff(times) == pytest.approx(np.full(8, np.diff(times).mean()), rel=1e-4)


def test_cosine_grid_has_the_signal_of_the_cosine_schedule():
    sigmas = Sampler(grid="cosine").sigmas(9, 0.05, 20.0, 7.0)[:-1]
    alpha_bar = 1 / (1 + sigmas.numpy() ** 2)
    angles = np.arccos(np.sqrt(alpha_bar))
    assert np.diff(angles) == pytest.approx(np.full(8, np.diff(angles).mean()))


def networks():
    return Networks(
        main=lambda x, s, c: denoise(x, s) + 0.1 * c.sum(1, keepdim=True),
        null=denoise,
    )


@pytest.mark.parametrize("solver", SINGLE)
def test_guided_trajectory_is_that_of_the_guided_denoiser(solver):
    """CFG changes the denoiser only; draws are those of the trajectory."""
    sigmas, labels = Sampler().sigmas(7, LOW, HIGH, RHO), torch.ones(4, 1)
    x = HIGH * SampleRNG(3, range(4)).randn((1,), "cpu").double()
    for g in (1.0, 3.0):
        found = sample_guided(
            networks(), x, sigmas, labels, Guidance(g), SampleRNG(3, range(4)), solver=solver
        )
        rng = SampleRNG(3, range(4))
        expected = sample_single(
            solver, lambda x, s, g=g: denoise(x, s) + g * 0.1, x, sigmas,
            draw=lambda rng=rng: rng.randn((1,), "cpu"),
        )  # fmt: skip
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("solver", "calls"), [("heun", 13), *((s, 7) for s in SINGLE)])
def test_evaluations_are_counted(solver, calls):
    sigmas = Sampler().sigmas(7, LOW, HIGH, RHO)
    for g, branches in ((1.0, 1), (2.0, 2)):
        found = evaluations(Guidance(g).rule, Guidance(g), sigmas, solver=solver)
        assert sum(found.values()) == branches * calls


def test_rule_of_first_order_keeps_its_own_step_or_is_refused():
    rule = make_rule("cfgpp")
    guided = Guidance(1.6, rule)
    assert cannot_follow(rule, guided, Sampler("euler", "linear")) is None
    assert cannot_follow(rule, Guidance(1.0, rule), Sampler("sde")) is None
    for solver in ("dpmpp-2m", "sde"):
        reason = f"cfgpp takes its own first-order steps, so it cannot follow {solver}"
        assert cannot_follow(rule, guided, Sampler(solver)) == reason


def test_sampler_of_a_method_changes_its_samples_and_evaluations(modes2d):
    usual = Oracle(Oracle.config_type(), modes2d)
    other = usual.with_sampler(Sampler("dpmpp-2m", "cosine"))
    labels = torch.eye(4)
    made = [
        method.sample(method.build(), labels, Guidance(2.0), 12, SampleRNG(0, range(4)))
        for method in (usual, other)
    ]
    assert not torch.allclose(*made)
    assert (made[0] - made[1]).abs().max() < 1.0  # both near the same modes
    assert (usual.nfe(Guidance(2.0), 12), other.nfe(Guidance(2.0), 12)) == (46, 24)
    assert usual.sampler.is_usual


@pytest.fixture
def modes2d():
    from bench.data.find import find_dataset

    return find_dataset("modes2d").spec
