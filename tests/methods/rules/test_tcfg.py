import numpy as np
import pytest
import torch

from methods.rules import TCFG
from methods.rules.tcfg import TCFGKnobs
from tests.methods.rules.calls import guide, outputs


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
@pytest.mark.parametrize("louder", [0.3, 1.0, 3.0])
def test_against_singular_vectors_from_numpy(shape, louder, strength):
    d_cond, d_ref, _ = outputs(*shape)
    d_cond = louder * d_cond
    guided = guide(TCFG(TCFGKnobs(strength=strength)), d_cond, d_ref).flatten(1).numpy()
    pairs = zip(d_cond.flatten(1).numpy(), d_ref.flatten(1).numpy(), guided, strict=True)
    for c, u, got in pairs:
        v = np.linalg.svd(np.stack([c, u]), full_matrices=False)[2][0]
        damped = (1 - strength) * u + strength * np.dot(u, v) * v
        np.testing.assert_allclose(got, damped + 3.0 * (c - damped), rtol=1e-9, atol=1e-9)


def test_parallel_outputs_give_cfg():
    d_cond, _, _ = outputs(3, 4, 4)
    for factor in (0.5, -2.0):
        guided = guide(TCFG(), d_cond, factor * d_cond)
        assert torch.allclose(guided, (3.0 - 2.0 * factor) * d_cond, rtol=1e-12)


def test_smaller_orthogonal_reference_is_removed():
    d_cond, d_ref = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    guided = guide(TCFG(), d_cond.double(), d_ref.double())
    assert torch.allclose(guided, 3.0 * d_cond.double(), rtol=1e-12)


def test_outputs_of_zero_stay_zero():
    zero = torch.zeros(4, 2, dtype=torch.float64)
    assert torch.equal(guide(TCFG(), zero, zero), zero)
