import numpy as np
import pytest
import torch

from methods import Guidance
from methods.rules import make_rule
from methods.rules.record import Record
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from tests.methods.rules import toy


def test_against_numpy():
    x, _, labels, rng = toy.start(steps=9)

    def solve(x, levels, g):
        def guide(x, d_c, d_u, s, step, stage):
            return d_u + g * (d_c - d_u)

        return toy.integrate(guide, start=lambda: (torch.from_numpy(x), levels, labels, None))

    # Of 9 steps, 5 are for two rounds of 2, which leaves 5 for the first sampling.
    expected = solve(x.numpy(), karras_sigmas(5, 0.01, 20.0), 1.0)
    for _ in range(2):
        noise = rng.randn((2,)).double().numpy()
        expected = solve(expected + 0.8 * noise, karras_sigmas(2, 0.01, 0.8), 3.0)
    np.testing.assert_allclose(toy.sample("gibbs", sigma=0.8), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rounds", [1, 2])
def test_rounds_shrink_two_gaussians_by_the_closed_form(rounds):
    """S^2 <- rho^2 (S^2 + sigma^2), where CFG's exact flow from sigma to 0 multiplies by rho."""
    s_c, s_u, g, sigma, n = 0.6, 1.1, 2.0, 1.0, 20_000
    shares = [s**2 / (s**2 + sigma**2) for s in (s_c, s_u)]
    ratio, variance = shares[0] ** g * shares[1] ** (1 - g), s_c**2
    for _ in range(rounds):
        variance = ratio * (variance + sigma**2)
    assert variance**0.5 == pytest.approx({1: 0.417, 2: 0.388}[rounds], abs=5e-4)
    x = 80 * torch.randn(n, 1, generator=torch.Generator().manual_seed(0)).double()
    nets = toy.gaussians(0.0, s_c, 0.0, s_u)
    found = toy.of_gaussians("gibbs", nets, karras_sigmas(160), x, g, rounds=rounds)
    assert found.std() == pytest.approx(variance**0.5, rel=4 / (2 * n) ** 0.5)


def test_composed_rules_start_anew_in_each_round():
    knobs = {"adaptive": {"similarity": -1.0}}
    record, (x, sigmas, labels, rng) = Record(), toy.start()
    guidance = Guidance(3.0, make_rule("gibbs+adaptive", knobs), record)
    sample_guided(toy.networks(), x, sigmas, labels, guidance, rng)
    assert record.evaluations()["null"] == 2 * 2  # the first step of both rounds


def test_published_steps_cost_99_pairs_at_most():
    assert toy.counted("gibbs", steps=32) == {"main": 23 + 2 * 19, "null": 2 * 19}
    assert toy.counted("gibbs", steps=1) == {"main": 1 + 2 * 3, "null": 2 * 3}
