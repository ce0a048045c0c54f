import math

import numpy as np
import pytest

from methods.rules import make_rule
from tests.methods.rules import toy
from tests.methods.rules.calls import point


def test_published_omega_and_lambda():
    """omega exp(lambda (1 - t / t_max)) with omega = g^(1 - rate) and lambda = rate ln g."""
    omega, rate_of_growth = 1.8, 0.03
    g = omega * math.exp(rate_of_growth)
    rule = make_rule("c2fg", {"c2fg": {"rate": rate_of_growth / math.log(g)}})
    for sigma in (80.0, 5.0, 0.5, 0.002):
        t = sigma / (1 + sigma) / (80 / 81)
        expected = omega * math.exp(rate_of_growth * (1 - t))
        found = rule.scale(g, point(start=sigma, end=sigma / 2))
        assert found == pytest.approx(expected, rel=1e-12)


def test_scale_runs_from_one_to_g():
    rule = make_rule("c2fg")
    assert rule.scale(2.0, point(start=80.0)) == 1.0
    assert rule.scale(2.0, point(start=1e-6)) == pytest.approx(2.0, rel=1e-5)
    assert rule.scale(1.0, point(start=3.0)) == 1.0
    assert rule.scale(-2.0, point(start=3.0)) == -2.0


def test_samples_against_numpy():
    levels = toy.start()[1].tolist()

    def guide(x, d_c, d_u, s, step, stage):
        t = levels[step] / (1 + levels[step]) / (20 / 21)
        return d_u + 3 ** (1 - t) * (d_c - d_u)

    np.testing.assert_allclose(toy.sample("c2fg"), toy.integrate(guide), rtol=1e-9, atol=1e-9)
