import numpy as np
import torch

from methods import SampleRNG
from methods.rules import CFG, Call, Networks, make_rule
from tests.methods.rules.calls import outputs, point, sample


def test_against_numpy():
    d_cond, d_ref, decoy = outputs(3, 4, 4)
    asked = []

    def main(x, sigma, labels):
        asked.append(labels)
        return decoy

    x, labels = torch.zeros_like(d_cond), torch.eye(4)
    rng = SampleRNG(0, range(4))
    call = Call(x, x.new_tensor(1.0), point(), labels, 3.0, Networks(main), rng)
    found = make_rule("tdg").combine(d_cond, d_ref, 3.0, call)
    assert torch.equal(asked[0], labels / 2)
    for c, u, m, got in zip(d_cond.numpy(), d_ref.numpy(), decoy.numpy(), found, strict=True):
        a = np.linalg.norm(c - u) / np.linalg.norm(c - m)
        expected = (m + u) / 2 + 3 * 1.8 / 3.6 * a * (c - m) + 3 * 1.8 * 2.6 / 3.6 * (c - u)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_decoy_is_cfg_at_another_scale_for_the_exact_denoiser():
    """Hence it cannot win against CFG at equal strength."""
    plain = sample(CFG(), 0.5 + 3 * 1.8 * 2.6 / 3.6)
    assert torch.allclose(sample(make_rule("tdg"), 3.0), plain, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(sample(CFG(), 3.0), plain, rtol=1e-2)


def test_null_decoy_is_cfg_times_the_factor():
    rule = make_rule("tdg", {"tdg": {"kept": 0.0, "factor": 1.5, "balance": 0.7}})
    assert torch.allclose(sample(rule, 2.0), sample(CFG(), 3.0), rtol=1e-5, atol=1e-6)
