import numpy as np
import pytest
import torch

from methods.rules import MamboG, make_rule
from methods.rules.mambo_g import MamboGKnobs
from tests.methods.rules.calls import guide, outputs


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_against_numpy(shape):
    d_cond, d_ref, _ = outputs(*shape)
    d_cond = d_ref + 0.1 * d_cond
    guided = guide(MamboG(), d_cond, d_ref).numpy()
    for c, u, got in zip(d_cond.numpy(), d_ref.numpy(), guided, strict=True):
        w = 1 + 2.0 * np.exp(-8.0 * np.linalg.norm(c - u) / np.linalg.norm(u))
        assert 1 < w < 3
        np.testing.assert_allclose(got, u + w * (c - u), rtol=1e-12)


def test_distant_branches_are_unguided_and_close_branches_get_cfg():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    far = guide(MamboG(), 1e4 * d_cond, d_ref)
    assert torch.allclose(far, 1e4 * d_cond, rtol=1e-12)
    near = guide(MamboG(), d_ref + 1e-9 * d_cond, d_ref)
    assert torch.allclose((near - d_ref) / 3e-9, d_cond, rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 8.0])
def test_reference_of_zero_gives_a_finite_result(alpha):
    d_cond, d_ref, _ = outputs(2)
    rule = MamboG(MamboGKnobs(alpha=alpha))
    guided = guide(rule, d_cond, torch.zeros_like(d_ref))
    assert torch.allclose(guided, d_cond * (1.0 if alpha else 3.0), rtol=1e-12)


def test_apg_accepts_a_weight_per_sample():
    d_cond, d_ref, _ = outputs(2)
    d_ref = d_cond + 0.1 * d_ref
    together = guide(make_rule("mambo-g+apg"), d_cond, d_ref) - d_cond
    alone = guide(make_rule("apg"), d_cond, d_ref) - d_cond
    share = torch.exp(-8.0 * (d_cond - d_ref).norm(dim=1) / d_ref.norm(dim=1))
    assert torch.allclose(together, share[:, None] * alone, rtol=1e-9)
