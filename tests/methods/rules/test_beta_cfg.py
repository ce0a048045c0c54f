import numpy as np
import pytest
import torch
from scipy.stats import beta

from methods.rules import make_rule
from tests.methods.rules import toy
from tests.methods.rules.calls import guide, outputs, point


@pytest.mark.parametrize(("gamma", "norm"), [(1.0, 128.0), (0.4, 2.0)])
def test_against_numpy(gamma, norm):
    def guided(x, d_c, d_u, s, step, stage):
        e_c, e_u = (x - d_c) / s, (x - d_u) / s
        difference = e_c - e_u
        rms = np.sqrt((difference**2).mean(1, keepdims=True))
        length = norm * np.maximum(rms, 1e-6)
        weight = 3 * beta(2, 3).pdf(step / 8) / length**gamma
        return x - s * (e_u + weight * difference)

    found = toy.sample("beta-cfg", b=3.0, gamma=gamma, norm=norm)
    np.testing.assert_allclose(found, toy.integrate(guided), rtol=1e-9, atol=1e-9)


def test_norm_is_the_published_one_for_latents_of_64():
    d_cond, d_ref, _ = outputs(4, 64, 64)
    at = point(step=4, steps=9, start=2.0)
    found = guide(make_rule("beta-cfg"), d_cond, d_ref, at=at)
    length = (found - d_ref).flatten(1).norm(dim=1)
    assert torch.allclose(length, torch.tensor(3 * 1.5 * 2.0).double(), rtol=1e-12)


@pytest.mark.parametrize("step", [0, 9])
def test_ends_are_the_reference(step):
    d_cond, d_ref, _ = outputs(3)
    assert torch.equal(guide(make_rule("beta-cfg"), d_cond, d_ref, at=point(step=step)), d_ref)
    assert torch.equal(guide(make_rule("beta-cfg"), d_ref, d_ref), d_ref)
