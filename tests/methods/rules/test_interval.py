import numpy as np
import pytest
import torch
from pydantic import ValidationError

from methods import Guidance
from methods.rules import CFG, Interval
from methods.rules.dry_run import evaluations
from methods.rules.interval import IntervalKnobs
from methods.rules.trajectory import trajectory_points
from methods.samplers import karras_sigmas
from tests.methods.rules import toy
from tests.methods.rules.calls import point, sample


def interval(low, high):
    return Interval(IntervalKnobs(low=low, high=high))


@pytest.mark.parametrize(
    ("start", "inside"), [(0.9, False), (1.0, False), (1.1, True), (4.0, True), (4.1, False)]
)
def test_low_end_is_excluded_and_high_end_included(start, inside):
    at = point(start=start, end=0.5)
    assert interval(1.0, 4.0).scale(7.0, at) == (7.0 if inside else 1.0)


def test_trajectory_against_numpy():
    levels = toy.start()[1].tolist()

    def guide(x, d_c, d_u, s, step, stage):
        return d_u + 3.0 * (d_c - d_u) if 0.5 < levels[step] <= 6.0 else d_c

    found = toy.sample("interval", low=0.5, high=6.0)
    np.testing.assert_allclose(found, toy.integrate(guide), rtol=1e-9, atol=1e-9)
    assert 0 < sum(0.5 < level <= 6.0 for level in levels) < len(levels) - 2


def test_start_of_the_step_decides_for_both_stages():
    rule = interval(1.0, 4.0)
    assert rule.scale(7.0, point(stage=1, start=1.2, end=0.8)) == 7.0
    assert rule.scale(7.0, point(stage=1, start=4.5, end=3.5)) == 1.0


def test_published_interval_covers_the_published_steps():
    # EDM2-XXL: steps 17 to 22 of 32, from sigma 1.609 down to 0.283, the last of them to 0.189.
    sigmas = karras_sigmas(32)
    rule = interval(0.19, 1.61)
    guided = [p.step for p in trajectory_points(rule, sigmas) if rule.scale(2.0, p) != 1]
    assert guided == [step for step in range(17, 23) for _ in range(2)]
    assert evaluations(rule, Guidance(2.0, rule), sigmas) == {"main": 63, "null": 12}


def test_full_interval_is_cfg_and_interval_outside_the_grid_is_off():
    assert torch.equal(sample(interval(0.0, 1e9)), sample(CFG()))
    assert torch.equal(sample(interval(100.0, 200.0)), sample(CFG(), g=1.0))


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (1.0, 1.0)])
def test_empty_interval_is_refused(low, high):
    with pytest.raises(ValidationError, match="must ascend"):
        interval(low, high)


@pytest.mark.parametrize(("first", "last"), [(13, 19), (17, 22), (0, 31), (5, 5)])
def test_steps_are_those_that_the_authors_count(first, last):
    rule = Interval(IntervalKnobs(steps=(first, last)))
    sigmas = karras_sigmas(32)
    guided = {p.step for p in trajectory_points(rule, sigmas) if rule.scale(2.0, p) != 1}
    assert guided == set(range(first, last + 1))
    assert evaluations(rule, Guidance(2.0, rule), sigmas)["null"] == 2 * len(guided) - (last == 31)


def test_rounded_levels_miss_the_last_published_step_of_fd_dinov2():
    sigmas = karras_sigmas(32)
    assert float(sigmas[19]) == pytest.approx(0.8446, abs=5e-5)
    rule = interval(0.85, 5.0)
    assert {p.step for p in trajectory_points(rule, sigmas) if rule.scale(2.0, p) != 1} == set(
        range(13, 19)
    )


@pytest.mark.parametrize("steps", [(3, 2), (-1, 2)])
def test_invalid_steps_are_refused(steps):
    with pytest.raises(ValidationError, match="must ascend"):
        IntervalKnobs(steps=steps)


def test_steps_survive_the_way_through_a_row():
    rule = Interval(IntervalKnobs(steps=(17, 22)))
    assert rule.settings()["interval.steps"] == "[17, 22]"
    knobs = {k.removeprefix("interval."): v for k, v in rule.settings().items()}
    assert IntervalKnobs.model_validate(knobs) == rule.knobs
    assert "interval.steps" not in Interval().settings()
    with pytest.raises(ValidationError):
        IntervalKnobs.model_validate({"steps": "17-22"})
