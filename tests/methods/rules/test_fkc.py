import numpy as np
import pytest
import torch

from methods.rules import make_rule
from methods.samplers import karras_sigmas
from tests.methods.rules import toy
from tests.methods.rules.calls import guide, outputs, point


def test_weights_against_numpy():
    rule = make_rule("fkc", {"fkc": {"particles": 2, "clip": 0.5}})
    state, rates = {}, []
    for stage, sigma in ((0, 3.0), (1, 2.0)):
        d_cond, d_ref, x = outputs(3, seed=stage)
        at = point(stage=stage, start=3.0, end=2.0)
        guide(rule, d_cond, d_ref, x, at=at, state=state)
        gap = ((d_cond - d_ref).numpy() ** 2).sum(1)
        rates.append(3.0 * 2.0 * gap / sigma**3)
    call = type("Call", (), {"at": point(start=3.0, end=2.0), "state": state})
    gains = (sum(rates) / 2 * (3.0 - 2.0)).reshape(2, 2)
    expected = np.clip(gains - gains.mean(1, keepdims=True), -0.5, 0.5)
    assert (abs(expected) < 0.5).any()
    np.testing.assert_allclose(rule.resample(x, call), expected.ravel(), rtol=1e-12)
    assert state == {}


def test_particles_follow_the_tilted_density_that_cfg_misses():
    """p_c^g p_u^(1-g) of two Gaussians: precision g / s_c^2 + (1 - g) / s_u^2."""
    m_c, s_c, m_u, s_u, g, n = 1.2, 0.6, -0.3, 1.1, 1.6, 1200
    precision = g / s_c**2 + (1 - g) / s_u**2
    mean = (g * m_c / s_c**2 + (1 - g) * m_u / s_u**2) / precision
    x = 20 * torch.randn(n, 1, generator=torch.Generator().manual_seed(1)).double()
    nets, sigmas = toy.gaussians(m_c, s_c, m_u, s_u), karras_sigmas(40, 0.01, 20.0)
    cfg, fkc = (toy.of_gaussians("fkc", nets, sigmas, x, g, particles=count) for count in (1, 64))
    error = precision**-0.5 / n**0.5
    assert fkc.std() == pytest.approx(precision**-0.5, abs=3 * error / 2**0.5)
    assert fkc.mean() == pytest.approx(mean, abs=3 * error)
    assert cfg.std() == pytest.approx(s_c**g * s_u ** (1 - g), rel=0.06)
    assert cfg.std() < precision**-0.5 - 5 * error / 2**0.5
    assert cfg.mean() > mean + 5 * error


def test_gaussians_of_equal_width_have_equal_weights():
    seen = []
    rule = make_rule("fkc")

    class Watched(type(rule)):
        def resample(self, x, call):
            seen.append(super().resample(x, call))
            return seen[-1]

    toy.of_rule(Watched(), toy.gaussians(1.0, 0.6, 0.0, 0.6), karras_sigmas(6), torch.ones(3, 1))
    assert seen.pop() is None  # the step to 0
    assert all(float(weights.abs().max()) < 1e-12 for weights in seen)


def test_cost_is_that_of_the_particles():
    assert toy.counted("fkc") == {"main": 88, "null": 88}
