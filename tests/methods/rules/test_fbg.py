import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from methods.guidance import Guidance
from methods.rules import Call, Point, make_rule
from methods.rules.fbg import log_ratio, transition_variance
from methods.rules.trajectory import sample_guided

from . import toy


def rule(**knobs):
    return make_rule("fbg", {"fbg": knobs})


def sample(chosen, g, steps=9, watch=None):
    x, sigmas, labels, rng = toy.start(steps=steps)
    if watch is not None:
        weigh = chosen.weigh

        def seen(*args):
            watch.append(weigh(*args))
            return watch[-1]

        chosen.weigh = seen
    return sample_guided(toy.networks(), x, sigmas, labels, Guidance(g, chosen), rng).numpy()


def reference(g, steps, pi=0.999, t0=0.556, t1=0.429, ceiling=3.0):
    """The published update with Heun's method in numpy."""
    x, sigmas, labels, _ = toy.start(steps=steps)
    x, label, s = x.numpy(), labels.argmax(1).numpy(), sigmas.tolist()
    none = -np.ones(len(x))
    low = np.log((1 - pi) * g / (g - 1))
    delta = np.log((1 - pi) * 3 / 2) / ((1 - t0) * steps)
    i = round((1 - t1) * steps)
    tau = abs(2 * (s[i] ** 2 - s[i + 1] ** 2) * s[i + 1] ** 2 / s[i] ** 2 * delta / 10)
    posterior, weights = np.clip(np.zeros(len(x)), low, ceiling), []
    for a, b in itertools.pairwise(s):
        w = np.exp(posterior) / (np.exp(posterior) - (1 - pi))
        weights.append(w)
        d_c, d_u = toy.denoised(x, a, label), toy.denoised(x, a, none)
        slope = (x - d_u - w[:, None] * (d_c - d_u)) / a
        new = x + (b - a) * slope
        if b > 0:
            c, u = toy.denoised(new, b, label), toy.denoised(new, b, none)
            new = x + (b - a) * (slope + (new - u - w[:, None] * (c - u)) / b) / 2
            m_c = b**2 / a**2 * x + (a**2 - b**2) / a**2 * d_c
            m_u = b**2 / a**2 * x + (a**2 - b**2) / a**2 * d_u
            width = (a**2 - b**2) * b**2 / a**2
            gain = ((new - m_c) ** 2).sum(1) - ((new - m_u) ** 2).sum(1)
            posterior = np.clip(posterior - tau / (2 * width) * gain + delta, low, ceiling)
        x = new
    return x, np.array(weights)


@pytest.mark.parametrize(("g", "steps"), [(2.0, 9), (10.0, 18)])
def test_against_the_published_update(g, steps):
    seen = []
    x = sample(rule(), g, steps, seen)
    expected, weights = reference(g, steps)
    np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-8)
    # Both stages of a step share a weight; the last step has one stage.
    ours = np.array([w.numpy() for w in seen])
    np.testing.assert_allclose(ours[::2], weights, rtol=1e-8)
    np.testing.assert_array_equal(ours[1::2], ours[:-1:2])
    assert np.ptp(weights) > 0.1


def test_weights_are_between_one_and_the_scale():
    seen = []
    sample(rule(pi=0.9), 7.0, 18, seen)
    weights = torch.stack(seen)
    # The tolerance covers the rounding of exp(log(...)).
    assert weights.min() >= 1
    assert weights.max() <= 7 * (1 + 1e-9)
    assert weights.max() == pytest.approx(7.0)


def test_neutral_knobs_give_cfg():
    neutral = rule(**rule().neutral)
    expected = sample(make_rule("cfg"), 6.0)
    np.testing.assert_allclose(sample(neutral, 6.0), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("g", [0.0, 0.5])
def test_scales_below_one_are_unchanged(g):
    np.testing.assert_allclose(sample(rule(), g), sample(make_rule("cfg"), g), rtol=1e-12)


def test_update_is_the_log_ratio_of_the_transitions():
    rng = np.random.default_rng(0)
    x, x_next, d_c, d_u = rng.normal(size=(4, 5, 3))
    s, e = 2.0, 0.7
    share, std = (e / s) ** 2, math.sqrt(transition_variance(s, e))
    ours = log_ratio(*(torch.from_numpy(a) for a in (x, x_next, d_c, d_u)), s, e)
    one, other = (
        scipy.stats.norm.logpdf(x_next, share * x + (1 - share) * d, std).sum(1) for d in (d_c, d_u)
    )
    np.testing.assert_allclose(ours.numpy(), one - other, rtol=1e-10)


def test_transition_is_the_posterior_of_gaussian_noise():
    # x' given x and x0, by conditioning the joint normal of (x', x) on x.
    s, e, x0, x = 3.0, 1.2, 0.4, 2.5
    joint = np.array([[e**2, e**2], [e**2, s**2]])
    mean = x0 + joint[0, 1] / joint[1, 1] * (x - x0)
    variance = joint[0, 0] - joint[0, 1] ** 2 / joint[1, 1]
    share = (e / s) ** 2
    assert share * x + (1 - share) * x0 == pytest.approx(mean)
    assert transition_variance(s, e) == pytest.approx(variance)


def test_weight_without_evidence_is_three_at_t0():
    levels = toy.start(steps=36)[1].tolist()
    point = Point(0, 36, 0, levels[0], levels[0], levels[1], levels[0], tuple(levels))
    chosen = rule(t0=0.5)
    _, delta = chosen.rates(point)
    posterior = 18 * delta
    assert math.exp(posterior) / (math.exp(posterior) - 0.001) == pytest.approx(3.0)


def test_weight_of_evidence_at_t1_is_a_tenth_of_the_offset():
    levels = toy.start(steps=20)[1].tolist()
    point = Point(0, 20, 0, levels[0], levels[0], levels[1], levels[0], tuple(levels))
    tau, delta = rule(t1=0.4).rates(point)
    assert tau / (2 * transition_variance(levels[12], levels[13])) == pytest.approx(-delta / 10)


def test_weight_at_the_lowest_posterior_is_the_scale():
    call = Call(
        torch.zeros(2, 1, dtype=torch.float64),
        torch.tensor(1.0),
        Point(0, 4, 1, 1.0, 1.0, 0.5, 1.0),
        torch.eye(2),
        9.0,
        toy.networks(),
        toy.start()[3],
        {"fbg.log_posterior": torch.tensor([-50.0, 0.0], dtype=torch.float64)},
    )
    outputs = torch.zeros(2, 1, dtype=torch.float64)
    found = rule().weigh(9.0, outputs, outputs, call)
    assert found.tolist() == pytest.approx([9.0, 1 / 0.999])


def test_one_step_has_no_evidence():
    seen = []
    sample(rule(), 5.0, steps=1, watch=seen)
    assert [w.tolist() for w in seen] == [pytest.approx([1 / 0.999] * 6)]


def test_samples_do_not_depend_on_their_batch():
    x, sigmas, labels, rng = toy.start()
    whole = sample(rule(), 8.0)
    part = sample_guided(
        toy.networks(), x[2:4], sigmas, labels[2:4], Guidance(8.0, rule()), rng
    ).numpy()
    np.testing.assert_allclose(part, whole[2:4], rtol=1e-10)
