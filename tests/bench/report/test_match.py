"""The scale of equal outcome, against few lines of numpy."""

import numpy as np
import pytest

from bench.report.numbers.match import Curve, Level, find_match, gap_at, make_curve
from metrics.errors import jackknife

RNG = np.random.default_rng(3)
SCALES = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
GROUPS = 20
NOISE = RNG.normal(size=GROUPS)


def level(value, se=0.01, noise=NOISE):
    """A value with replicates of this standard error."""
    left = noise - noise.mean()
    scale = np.sqrt((GROUPS - 1) / GROUPS * np.square(left).sum())
    return Level(value, se, value + se * left / scale)


def curve(of, se=0.01, scales=SCALES):
    found = make_curve({g: level(of(g), se) for g in scales})
    assert found is not None
    return found


def rising(g):
    return np.log(g)


def test_scale_of_equal_outcome_is_found_at_and_between_measured_scales():
    measured = find_match(curve(rising), level(rising(3.0)), "none")
    assert (measured.place, measured.scale, measured.measured) == ("at", 3.0, True)
    between = find_match(curve(rising), level(rising(4.0)), "none")
    assert between.place == "at"
    assert between.scale == pytest.approx(4.0, abs=0.15)
    assert between.low < 4.0 < between.high
    assert not between.measured
    falling = find_match(curve(lambda g: -rising(g)), level(-rising(4.0)), "none")
    assert falling.scale == pytest.approx(between.scale)


def test_interval_holds_the_scales_at_which_cfg_does_not_differ_significantly():
    """With independent noise: |log g - log 3| <= t * sqrt(2) * se at scales without an error."""
    se, own = 0.05, np.random.default_rng(4).normal(size=GROUPS)
    fine = tuple(np.linspace(1, 6, 101))
    outcome = level(rising(3.0), se, own)
    found = find_match(curve(rising, se, fine), outcome, "none")
    base = level(0.0, se)
    spread = np.sqrt(
        (GROUPS - 1) / GROUPS * np.square((outcome.left - outcome.value) - base.left).sum()
    )
    reach = 2.093 * spread  # Student's t, 19 degrees of freedom, 97.5 %
    assert found.low == pytest.approx(3 * np.exp(-reach), abs=0.06)
    assert found.high == pytest.approx(3 * np.exp(reach), abs=0.06)


def test_interval_grows_by_the_error_of_the_interpolation():
    bent = {1.0: 0.0, 2.0: 1.0, 3.0: 2.4, 4.0: 3.0, 5.0: 4.0}
    found = make_curve({g: level(v, 1e-9) for g, v in bent.items()})
    straight = make_curve({g: level(g, 1e-9) for g in bent})
    assert straight.miss(np.array([1.5, 2.5])) == pytest.approx([0, 0], abs=1e-9)
    # Without the scale 3 the others lie on a line, which is 2 there.
    assert found.left_out[2] == pytest.approx(0.4)
    assert found.left_out[0] == found.left_out[-1] == 0
    most = max(found.left_out[1:3])
    assert found.miss(np.array([2.0, 2.5, 3.0])) == pytest.approx([0, most, 0])
    match = find_match(found, level(float(found.at(np.array([2.5]))[0, 0]), 1e-9), "none")
    # The slope is at most 2 there, so an error of nearly 0.4 reaches 0.15 at least.
    assert match.low < 2.35 < 2.65 < match.high


@pytest.mark.parametrize(
    ("of", "value", "direction", "place"),
    [
        (lambda g: min(g, 2.0), 2.0, "higher", "plateau"),
        (lambda g: 4 - abs(g - 5), 1.0, "none", "several"),
        (rising, 3.0, "higher", "beyond"),
        (rising, -1.0, "none", "below"),
        (rising, -1.0, "higher", "below"),
        # Precision below that without guidance, which CFG too has at a high scale.
        (lambda g: 4 - abs(g - 5), -1.0, "higher", "below"),
        (lambda g: 4 - abs(g - 5), -1.0, "none", "at"),
    ],
)
def test_outcome_without_a_single_scale_is_not_matched(of, value, direction, place):
    assert find_match(curve(of), level(value), direction).place == place


def test_match_is_never_outside_of_the_measured_scales():
    for value in (-10.0, 10.0):
        found = find_match(curve(rising), level(value), "none")
        assert 1.0 <= found.low <= found.scale <= found.high <= 13.0


def test_no_curve_through_two_scales_and_no_match_without_any_error():
    assert make_curve({1.0: level(0.0), 2.0: level(1.0)}) is None
    blind = make_curve({g: Level(rising(g), None, np.empty(0)) for g in SCALES})
    assert find_match(blind, Level(1.0, None, np.empty(0)), "none") is None


def test_rows_without_replicates_give_an_interval_of_their_errors():
    plain = make_curve({g: Level(rising(g), 0.03, np.empty(0)) for g in np.linspace(1, 6, 101)})
    found = find_match(plain, Level(rising(3.0), 0.04, np.empty(0)), "none")
    assert not found.paired
    assert found.low == pytest.approx(3 * np.exp(-1.96 * 0.05), abs=0.06)


def judged_curve(of, own):
    return make_curve({g: level(of(g), 0.02, own) for g in SCALES})


@pytest.mark.parametrize("joint", [True, False])
def test_difference_has_the_jackknife_error_of_the_moving_scale(joint):
    """Reference: for every group the outcome is solved for the scale on straight curves."""
    own, line, more = (np.random.default_rng(k).normal(size=GROUPS) for k in (5, 6, 7))
    outcomes = make_curve({g: level(2 * g, 0.05) for g in SCALES})
    judged = judged_curve(lambda g: 3 * g, own)
    outcome, value = level(2 * 4.0, 0.05, line), level(12.5, 0.02, more)
    match = find_match(outcomes, outcome, "none")
    assert match.scale == pytest.approx(4.0, abs=1e-6)
    found = gap_at(match, outcome, outcomes, value, judged, joint)
    noise = level(0.0, 0.05).left
    scales = np.clip((outcome.left - noise) / 2, match.low, match.high)
    cfg = level(0.0, 0.02, own).left
    assert found.value == pytest.approx(0.5)
    if joint:
        expected = jackknife(value.left - (3 * scales + cfg), 0.5).se
    else:
        still = jackknife(value.left - cfg, 0.5).se
        expected = np.hypot(still, jackknife(3 * scales, 12.0).se)
    assert found.se == pytest.approx(expected, rel=1e-6)


def test_difference_of_a_line_and_itself_is_exactly_zero():
    outcomes, judged = curve(rising), judged_curve(lambda g: g**2, NOISE[::-1])
    outcome = level(rising(5.0))
    match = find_match(outcomes, outcome, "none")
    found = gap_at(match, outcome, outcomes, level(25.0, 0.02, NOISE[::-1]), judged, True)
    assert (match.scale, found.value) == (5.0, 0.0)
    assert found.se <= 1e-9 * 25  # rounding
    assert found.p == 1.0


def test_curve_between_scales_is_monotone():
    steps = Curve(np.array(SCALES), np.array([[0.0, 0.0, 1.0, 1.0, 4.0, 4.0]]), np.zeros(6))
    assert (np.diff(steps.on_grid[0]) >= -1e-12).all()
