import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from methods.rules import make_rule
from methods.rules.higs import highpass
from tests.methods.rules import toy
from tests.methods.rules.calls import guide, outputs, point


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("g", [1.0, 3.0])
def test_against_numpy(g, eta):
    means = [0.0]

    def guided(x, d_c, d_u, s, step, stage):
        d, t = d_u + g * (d_c - d_u), s / (1 + s)
        mean = 0.75 * d + 0.25 * means[step]
        if not stage:
            means.append(mean)
        if step == 0 or not 0.4 < t <= 1:
            return d
        away = d - mean
        parallel = (away * d).sum(1, keepdims=True) / (d * d).sum(1, keepdims=True) * d
        return d + 1.75 * np.sqrt((t - 0.4) / 0.6) * (away - (1 - eta) * parallel)

    found = toy.sample("higs", g, eta=eta)
    np.testing.assert_allclose(found, toy.integrate(guided), rtol=1e-9, atol=1e-9)


def test_highpass_against_scipy():
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)).double()
    radius = np.hypot(np.arange(6)[:, None] / 6, np.arange(8) / 8)
    spectrum = dctn(x.numpy(), axes=(2, 3), norm="ortho") / (1 + np.exp(-50 * (radius - 0.05)))
    expected = idctn(spectrum, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(highpass(x, 0.05).numpy(), expected, rtol=1e-9, atol=1e-12)
    # A constant image keeps the share of frequency 0.
    assert torch.allclose(highpass(torch.ones_like(x), 0.05), torch.tensor(0.0758582).double())


def test_constant_output_is_not_changed():
    d_cond, _, _ = outputs(3, 8, 8)
    rule, state = make_rule("higs"), {}
    for step in range(4):
        found = guide(rule, d_cond, d_cond, at=point(step=step), state=state)
        assert torch.allclose(found, d_cond, rtol=1e-12, atol=1e-12)
    assert torch.allclose(state["higs.mean"], (1 - 0.25**4) * d_cond, rtol=1e-12)
