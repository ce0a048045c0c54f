"""Guidance-free training against the closed form: the optimum is CFG at g = 1/beta."""

import pytest
import torch

from methods import GFT, BatchRNG, Guidance, Progress, SampleRNG
from methods.nets.config import build_net
from methods.oracle import OracleConfig
from methods.precond import EDMPrecond
from methods.registry import METHODS
from tests.methods.embedded import DATA, B, Family, batch, denoising_error, guided, slowest
from tests.methods.nets.golden import awaken

CONFIG = GFT.presets["modes2d"].config
METHOD = GFT(CONFIG, DATA)


def scale(features):
    return 1 / slowest(features, CONFIG.guidance_scale)


def run(seed=0):
    nets = Family(scale)
    data = batch()
    terms = METHOD.loss(nets, data, Progress(0, 1), BatchRNG(seed, B, 0, B))
    return nets, data.x0, terms["denoise"]


def test_mixture_at_exact_cfg_is_the_exact_denoiser():
    nets, x0, terms = run()
    trained = nets.calls[0]
    # beta is decoded from float32 features of 1e-3 beta and cancels up to rounding.
    torch.testing.assert_close(terms, denoising_error(trained, x0, CONFIG), rtol=1e-3, atol=1e-4)


def test_gradient_points_to_cfg_with_weight_beta_squared():
    nets, x0, terms = run()
    terms.sum().backward()
    x, sigma, labels, g, *_ = nets.calls[0]
    sigma = sigma.double()
    d_null = guided(x, sigma, torch.zeros_like(labels), torch.ones_like(g))
    # The output that fits one image y in place of E[y | x].
    fitted = d_null + g[:, None] * (x0 - d_null)
    weight = 1 / sigma**2 + 1 / CONFIG.sigma_data**2
    expected = (2 * weight / g**2)[:, None] * (guided(x, sigma, labels, g) - fitted)
    torch.testing.assert_close(nets.offset.grad, expected, rtol=1e-3, atol=1e-4)


def test_temperature_is_uniform_and_is_one_for_dropped_labels():
    betas, dropped = [], 0
    for seed in range(20):
        nets, *_ = run(seed)
        (_, _, labels, g, form, mask, grad), (_, _, zeros, off, _, no_mask, no_grad) = nets.calls
        kept = labels.sum(1) > 0
        torch.testing.assert_close(g[~kept], torch.ones(int((~kept).sum())).double())
        betas.append(1 / g[kept])
        dropped += int((~kept).sum())
        assert (form, grad, no_grad, no_mask) == ("train", True, False, None)
        assert mask is not None
        assert not zeros.any()
        torch.testing.assert_close(off, torch.ones(B).double())
    drawn = torch.cat(betas)
    assert 0 < drawn.min() < 0.01
    assert 0.99 < drawn.max() < 1.0001
    # Four standard errors for about 1150 uniform draws and for a dropped tenth of 1280 rows.
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.035)
    assert float((drawn < 1 / 13).double().mean()) == pytest.approx(1 / 13, abs=0.032)
    assert dropped / (20 * B) == pytest.approx(0.1, abs=0.035)


@pytest.mark.parametrize("g", [1.0, 7.0])
def test_samples_equal_exact_cfg(g):
    labels = torch.eye(4)[torch.arange(B) % 4]
    got = METHOD.sample(Family(scale), labels, Guidance(g), 18, SampleRNG(3, range(B)))
    oracle = METHODS["oracle"](OracleConfig(), DATA)
    wanted = oracle.sample(oracle.build(), labels, Guidance(g), 18, SampleRNG(3, range(B)))
    # beta is decoded from float32 features.
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    assert METHOD.nfe(Guidance(g), 18) == 35


def test_supports():
    assert [METHOD.supports(Guidance(g), 18) for g in (1, 14, 1000)] == [None] * 3
    assert METHOD.supports(Guidance(0.5), 18) == "trained for guidance 1 and above, not 0.5"


def test_initial_weights_reproduce_the_edm_run():
    source = awaken(EDMPrecond(build_net(CONFIG.net, DATA), sigma_data=CONFIG.sigma_data))
    nets = METHOD.build()
    nets.load_state_dict(METHOD.initial_weights(source.state_dict()), strict=True)
    x, labels = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.eye(4)
    sigma = torch.tensor([0.1, 1.0, 5.0, 80.0])
    with torch.no_grad():
        out = nets(x, sigma, labels, METHOD._embed(torch.full((4,), 0.1)), form="train")
        # The same operations in the same order, except for adding zero.
        torch.testing.assert_close(out, source(x, sigma, labels), rtol=1e-6, atol=1e-6)
