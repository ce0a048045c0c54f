import numpy as np
import pytest
import torch
from pydantic import ValidationError

from methods.rules import Monotone, make_rule
from methods.rules.monotone import MonotoneKnobs
from tests.methods.rules.calls import point, sample


def excesses(steps, stage=0, **knobs):
    """g(t) - 1 at every step for g = 2."""
    rule = Monotone(MonotoneKnobs(**knobs))
    return np.array([rule.scale(2.0, point(i, steps, stage)) - 1 for i in range(steps)])


@pytest.mark.parametrize("stage", [0, 1])
def test_schedules_against_numpy(stage):
    t = 1 - (np.arange(18) + 0.5) / 18
    np.testing.assert_allclose(excesses(18, stage, kind="linear"), 2 * (1 - t), atol=1e-12)
    np.testing.assert_allclose(
        excesses(18, stage, kind="cosine"), 1 + np.cos(np.pi * t), atol=1e-12
    )
    clamped = excesses(18, stage, kind="linear", clamp=0.4)
    np.testing.assert_allclose(clamped, np.maximum(0.4, 2 * (1 - t)), atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7, 18])
def test_mean_of_g_minus_1_equals_that_of_cfg(kind, steps):
    assert excesses(steps, kind=kind).mean() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_guidance_increases(kind):
    assert (np.diff(excesses(18, kind=kind)) > 0).all()


def test_scale_1_stays_off():
    rule = Monotone(MonotoneKnobs(clamp=0.5))
    assert [rule.scale(1.0, point(i)) for i in range(10)] == [1.0] * 10


def test_composes_with_an_interval_in_either_order():
    one, other = make_rule("interval+monotone"), make_rule("monotone+interval")
    for start, inside in ((3.0, False), (2.0, True), (0.3, True), (0.2, False)):
        at = point(start=start, end=0.1)
        want = Monotone().scale(5.0, at) if inside else 1.0
        assert one.scale(5.0, at) == other.scale(5.0, at) == want
    assert torch.equal(sample(one), sample(other))
    assert not torch.equal(sample(one), sample(make_rule("interval")))


def test_unknown_schedule_is_refused():
    with pytest.raises(ValidationError, match=r"linear.*cosine"):
        MonotoneKnobs(kind="quadratic")
