import numpy as np
import torch

from methods import Guidance
from methods.rules import Rescale, make_rule
from methods.rules.rescale import RescaleKnobs
from tests.methods.rules.calls import guide, oracle, outputs


def test_against_numpy():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    c, u = d_cond.numpy(), d_ref.numpy()
    cfg = u + 3.0 * (c - u)
    axes = tuple(range(1, c.ndim))
    ratio = c.std(axes, keepdims=True) / cfg.std(axes, keepdims=True)
    want = 0.7 * cfg * ratio + 0.3 * cfg
    np.testing.assert_allclose(guide(Rescale(), d_cond, d_ref).numpy(), want, rtol=1e-12)


def test_full_rescale_keeps_the_contrast_of_every_sample():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    guided = guide(Rescale(RescaleKnobs(phi=1.0)), d_cond, d_ref, g=9.0)
    assert torch.allclose(guided.flatten(1).std(1), d_cond.flatten(1).std(1), rtol=1e-12)
    assert not torch.allclose(guided, d_cond)


def test_flat_output_is_unchanged():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    d_ref = d_cond * 1.5 - 0.5  # so that 3 D_c - 2 D_ref is 1 everywhere
    guided = guide(Rescale(), d_cond, d_ref, g=3.0)
    assert torch.allclose(guided, torch.ones_like(guided), rtol=0, atol=1e-12)
    zero = torch.zeros_like(d_cond)
    assert torch.equal(guide(Rescale(), zero, zero), zero)


def test_vectors_are_refused_above_scale_1():
    for name in ("rescale", "interval+rescale"):
        rule = make_rule(name)
        assert "needs images" in oracle().supports(Guidance(3.0, rule), 18)
        assert oracle().supports(Guidance(1.0, rule), 18) is None
