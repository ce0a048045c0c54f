"""Model guidance against the closed-form denoiser: its fixed point is CFG."""

import pytest
import torch

from methods import MG, BatchRNG, Guidance, Progress, SampleRNG
from methods.mg import guided_target
from methods.oracle import OracleConfig
from methods.registry import METHODS
from tests.methods.embedded import (
    DATA,
    B,
    Family,
    batch,
    denoising_error,
    exact,
    guided,
    null,
    slowest,
)

CONFIG = MG.presets["modes2d"].config
METHOD = MG(CONFIG, DATA)


def scale(features):
    return 1 + slowest(features, CONFIG.guidance_scale)


def run(seed=0):
    nets = Family(scale)
    data = batch()
    terms = METHOD.loss(nets, data, Progress(0, 1), BatchRNG(seed, B, 0, B))
    return nets, data.x0, terms["denoise"]


def points(sigma=1.5):
    generator = torch.Generator().manual_seed(2)
    x = 3 * torch.randn(B, 2, generator=generator, dtype=torch.float64)
    labels = torch.eye(4, dtype=torch.float64)[torch.arange(B) % 4]
    return x, torch.full((B,), sigma, dtype=torch.float64), labels


@pytest.mark.parametrize("g", [1.0, 1.5, 4.0, 14.0])
def test_iterating_the_target_converges_to_cfg(g):
    x, sigma, labels = points()
    d_c, d_null = exact(x, sigma, labels), null(x, sigma)
    w = torch.full((B,), g - 1, dtype=torch.float64)
    d = torch.zeros_like(x)
    m, errors = 1 - 1 / g, []
    wanted = guided(x, sigma, labels, w + 1)
    for _ in range(400):
        d = guided_target(d_c, d, d_null, w)
        errors.append(float((d - wanted).abs().max()))
    # The error contracts by m: 400 iterations leave 1.3e-13 of it at g = 14.
    assert errors[-1] < 1e-10
    assert errors[1] == pytest.approx(m * errors[0], rel=1e-9, abs=1e-12)
    if g > 2:
        # With g in place of w = g - 1, the other convention, CFG is not a fixed point.
        other = guided_target(d_c, wanted, d_null, w + 1)
        assert (other - wanted).abs().max() > 1e-2


def test_loss_at_exact_cfg_is_that_of_the_exact_denoiser():
    nets, x0, terms = run()
    trained = nets.calls[0]
    # Scales are decoded from float32 features of 1e-4 w, with an error of 1e-5 w.
    torch.testing.assert_close(terms, denoising_error(trained, x0, CONFIG), rtol=1e-3, atol=1e-4)


def test_gradient_is_that_of_the_amplified_target_divided_by_g():
    nets, x0, terms = run()
    terms.sum().backward()
    x, sigma, labels, g, *_ = nets.calls[0]
    sigma = sigma.double()
    d_null = null(x, sigma)
    amplified = d_null + g[:, None] * (x0 - d_null)
    weight = 1 / sigma**2 + 1 / CONFIG.sigma_data**2
    expected = (2 * weight / g)[:, None] * (guided(x, sigma, labels, g) - amplified)
    torch.testing.assert_close(nets.offset.grad, expected, rtol=1e-4, atol=1e-4)


def test_scales_cover_the_range_and_are_off_for_dropped_labels():
    scales, dropped = [], 0
    for seed in range(20):
        nets, *_ = run(seed)
        (_, _, labels, g, form, mask, grad), (_, _, zeros, off, _, no_mask, no_grad) = nets.calls
        kept = labels.sum(1) > 0
        assert torch.equal(g[~kept], torch.ones(int((~kept).sum()), dtype=g.dtype))
        scales.append(g[kept])
        dropped += int((~kept).sum())
        assert (form, grad, no_grad, no_mask) == ("train", True, False, None)
        assert mask is not None
        assert not zeros.any()
        assert (off == 1).all()
    drawn = torch.cat(scales)
    assert 1 <= drawn.min() < 1.1
    assert 14.9 < drawn.max() <= 15.001
    # The mean of uniform w and the share of dropped labels: four standard errors for 1280 rows.
    assert float(drawn.mean()) == pytest.approx(8, abs=0.5)
    assert dropped / (20 * B) == pytest.approx(0.1, abs=0.035)


@pytest.mark.parametrize("g", [1.0, 7.0])
def test_samples_equal_exact_cfg_at_half_the_cost(g):
    labels = torch.eye(4)[torch.arange(B) % 4]
    got = METHOD.sample(Family(scale), labels, Guidance(g), 18, SampleRNG(3, range(B)))
    oracle = METHODS["oracle"](OracleConfig(), DATA)
    wanted = oracle.sample(oracle.build(), labels, Guidance(g), 18, SampleRNG(3, range(B)))
    # Scales are decoded from float32 features, with an error of 1e-5 w.
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    assert METHOD.nfe(Guidance(g), 18) == 35
    assert oracle.nfe(Guidance(7.0), 18) == 70


def test_supports():
    assert METHOD.supports(Guidance(1), 18) is None
    assert METHOD.supports(Guidance(15), 3) is None
    assert METHOD.supports(Guidance(15.5), 18) == "trained for guidance 1 to 15, not 15.5"
    assert METHOD.supports(Guidance(0.5), 18) == "trained for guidance 1 to 15, not 0.5"


def test_network_without_classes_is_refused():
    config = MG.presets["digits"].config
    net = config.net.model_copy(update={"conditional": False})
    with pytest.raises(ValueError, match="needs a network with classes"):
        type(config)(**{**config.model_dump(), "net": net})
