import numpy as np
import pytest
import torch

from methods import SampleRNG
from methods.rules import CFGZero
from methods.rules.cfg_zero import CFGZeroKnobs
from tests.methods.rules.calls import guide, outputs, point, sample


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_against_numpy_in_slopes(shape):
    d_cond, d_ref, x = outputs(*shape)
    at = point(start=0.7)
    guided = guide(CFGZero(), d_cond, d_ref, x, at=at).flatten(1).numpy()
    for c, u, state, got in zip(
        *(t.flatten(1).numpy() for t in (d_cond, d_ref, x)), guided, strict=True
    ):
        slope_c, slope_u = (state - c) / 0.7, (state - u) / 0.7
        s = np.dot(slope_c, slope_u) / np.dot(slope_u, slope_u)
        assert np.dot(slope_c - s * slope_u, slope_u) == pytest.approx(0.0, abs=1e-10)
        slope = s * slope_u + 3.0 * (slope_c - s * slope_u)
        np.testing.assert_allclose(got, state - 0.7 * slope, rtol=1e-9)


def test_equal_branches_give_no_guidance():
    d_cond, _, x = outputs(3, 4, 4)
    assert torch.allclose(guide(CFGZero(), d_cond, d_cond, x, g=9.0), d_cond, rtol=1e-12)
    assert torch.equal(guide(CFGZero(), d_cond, d_cond, d_cond, g=9.0), d_cond)


@pytest.mark.parametrize(("steps", "zeros"), [(8, 1), (18, 1), (50, 2), (100, 4)])
def test_first_steps_have_zero_velocity(steps, zeros):
    d_cond, d_ref, x = outputs(2)
    for stage in (0, 1):
        rest = []
        for step in range(steps):
            at = point(step, steps, stage, start=3.0, end=1.0)
            guided = guide(CFGZero(), d_cond, d_ref, x, at=at)
            rest.append(torch.equal(guided, x / (1 + at.sigma)))
        assert rest == [step < zeros for step in range(steps)]


def test_zero_velocity_in_all_steps_returns_the_scaled_noise():
    # All steps have zero velocity, so the coordinate of flow matching, x / (1 + sigma), is
    # constant. At level 0 it equals the sample.
    rest = sample(CFGZero(CFGZeroKnobs(zero_share=0.99)))
    noise = SampleRNG(0, range(4)).randn((2,))
    assert torch.allclose(rest, 80 / 81 * noise, rtol=1e-6)
