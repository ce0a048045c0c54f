import numpy as np
import pytest
import torch

from methods import Guidance
from methods.rules import DynamicThreshold, make_rule
from methods.rules.dynamic_threshold import DynamicThresholdKnobs
from tests.methods.rules.calls import guide, oracle, outputs


@pytest.mark.parametrize(("percentile", "limit"), [(99.5, 1.0), (80.0, 1.0), (90.0, 2.5)])
def test_against_numpy(percentile, limit):
    d_cond, d_ref, _ = outputs(3, 8, 8)
    knobs = DynamicThresholdKnobs(percentile=percentile, limit=limit)
    guided = guide(DynamicThreshold(knobs), d_cond, d_ref).numpy()
    for c, u, got in zip(d_cond.numpy(), d_ref.numpy(), guided, strict=True):
        cfg = u + 3.0 * (c - u)
        s = max(limit, np.percentile(np.abs(cfg), percentile))
        np.testing.assert_allclose(got, np.clip(cfg, -s, s) / s * limit, rtol=1e-12)


def test_output_is_limited_to_the_range_and_unchanged_within_it():
    d_cond, d_ref, _ = outputs(3, 8, 8)
    d_cond[0], d_ref[0] = d_cond[0].clamp(-0.1, 0.1), d_ref[0].clamp(-0.1, 0.1)
    guided = guide(DynamicThreshold(), d_cond, d_ref)
    assert torch.equal(guided[0], d_ref[0] + 3.0 * (d_cond[0] - d_ref[0]))
    assert guided.abs().amax() == 1.0


def test_percentile_0_is_a_plain_clip():
    d_cond, d_ref, _ = outputs(3, 8, 8)
    guided = guide(DynamicThreshold(DynamicThresholdKnobs(percentile=0.0)), d_cond, d_ref)
    assert torch.equal(guided, (d_ref + 3.0 * (d_cond - d_ref)).clamp(-1, 1))


def test_vectors_are_refused_above_scale_1():
    for name in ("dynamic-threshold", "interval+dynamic-threshold"):
        rule = make_rule(name)
        assert "needs images" in oracle().supports(Guidance(3.0, rule), 18)
        assert oracle().supports(Guidance(1.0, rule), 18) is None
