import dataclasses
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from metrics.base import ExactMixture, SampleSet
from metrics.registry import METRICS
from metrics.tilt import (
    at_guidance,
    entropy,
    grid_w1,
    log_tilt,
    tilt_distance,
    tilted,
)
from metrics.toy import class_w1, mixture_w1

from .helpers import vectors

APART = ExactMixture((np.array([[2.0]]), np.array([[-2.0]])), 0.2)
OVERLAP = ExactMixture((np.array([[0.5]]), np.array([[-0.5]])), 0.6)
MANY = ExactMixture((np.array([[0.0], [1.5]]), np.array([[0.7]]), np.array([[-1.0]])), 0.4)
PLANE = ExactMixture((np.array([[0.6, 0.2]]), np.array([[-0.4, 0.5], [0.0, -0.7]])), 0.5)
PAIR = ExactMixture((np.array([[0.5, 0.0]]), np.array([[-0.5, 0.0]])), 0.6)


def pdf(x, modes, std):
    return np.mean([scipy.stats.norm.pdf(x, m[0], std) for m in modes], axis=0)


def weight(x, label, exact, g):
    """p(x | c)^g p(x)^(1 - g), from the definition."""
    own = pdf(x, exact.means[label], exact.std)
    every = np.mean([pdf(x, modes, exact.std) for modes in exact.means], axis=0)
    return own**g * every ** (1 - g)


def quantiles(density, n):
    nodes, below = density.marginals[0]
    return np.interp((np.arange(n) + 0.5) / n, below, nodes)


@pytest.mark.parametrize("exact", [OVERLAP, MANY])
@pytest.mark.parametrize("g", [0.5, 1.0, 2.0, 5.0])
def test_agrees_with_quadrature_of_the_definition(exact, g):
    for label in range(len(exact.means)):
        found = tilted(exact, label, g)
        total = scipy.integrate.quad(
            weight, -4, 5, (label, exact, g), epsabs=1e-13, epsrel=1e-10, limit=400
        )[0]
        assert math.exp(found.log_norm) == pytest.approx(total, rel=1e-7)
        nodes, below = found.marginals[0]
        for x in (-0.5, 0.3, 1.1):
            part = scipy.integrate.quad(
                weight, -4, x, (label, exact, g), epsabs=1e-13, epsrel=1e-10, limit=400
            )[0]
            # The function is linear between nodes, which are a fiftieth of std apart.
            assert np.interp(x, nodes, below) == pytest.approx(part / total, abs=5e-5)


@pytest.mark.parametrize("exact", [OVERLAP, MANY, PLANE])
@pytest.mark.parametrize("g", [0.0, 1.0, 3.0, 13.0])
def test_tilted_density_is_normalised(exact, g):
    for label in range(len(exact.means)):
        found = tilted(exact, label, g)
        density = np.exp(found.log_density)
        for axis in reversed(found.axes):
            density = scipy.integrate.simpson(density, x=axis, axis=-1)
        assert float(density) == pytest.approx(1.0, abs=1e-6)


def test_tilt_without_guidance_is_the_class_density():
    found = tilted(MANY, 0, 1.0)
    np.testing.assert_allclose(
        np.exp(found.log_density), pdf(found.axes[0], MANY.means[0], 0.4), atol=1e-9
    )
    plane = tilted(PLANE, 1, 1.0)
    x, y = np.meshgrid(*plane.axes, indexing="ij")
    exact = np.mean(
        [
            scipy.stats.multivariate_normal.pdf(np.stack([x, y], -1), m, 0.25 * np.eye(2))
            for m in PLANE.means[1]
        ],
        axis=0,
    )
    np.testing.assert_allclose(np.exp(plane.log_density), exact, atol=1e-9)


def test_tilt_at_scale_zero_is_the_density_of_all_classes():
    found = tilted(OVERLAP, 0, 0.0)
    both = (pdf(found.axes[0], [[0.5]], 0.6) + pdf(found.axes[0], [[-0.5]], 0.6)) / 2
    np.testing.assert_allclose(np.exp(found.log_density), both, atol=1e-9)


@pytest.mark.parametrize("g", [2.0, 7.0])
def test_two_classes_have_a_closed_form(g):
    # p(c | x) of modes at +-m is a sigmoid of 2 m x / std^2, and p_g is p(x | c) p(c | x)^(g - 1).
    found = tilted(OVERLAP, 0, g)
    x = found.axes[0]
    form = pdf(x, [[0.5]], 0.6) * (1 + np.exp(-2 * 0.5 * x / 0.36)) ** (1 - g)
    form = form / scipy.integrate.simpson(form, x=x)
    np.testing.assert_allclose(np.exp(found.log_density), form, atol=1e-8)


@pytest.mark.parametrize("g", [3.0, 13.0])
def test_distant_classes_are_not_tilted(g):
    found = tilted(APART, 1, g)
    np.testing.assert_allclose(
        np.exp(found.log_density), pdf(found.axes[0], [[-2.0]], 0.2), atol=1e-8
    )
    assert tilt_distance(APART, g) < 1e-6


def test_tilt_is_a_shifted_gaussian_if_the_other_class_dominates():
    # Against p(x) = N(-m, std^2) alone, p_g would be N(m + 2 m (g - 1), std^2); the class at +m
    # is negligible only for x far below: there the logarithms differ by a constant.
    x = np.linspace(-9, -8, 5)[:, None]
    found = log_tilt(x, 0, OVERLAP, 3.0)
    moved = scipy.stats.norm.logpdf(x[:, 0], 0.5 + 2 * 0.5 * 2.0, 0.6)
    np.testing.assert_allclose(np.diff(found), np.diff(moved), rtol=1e-6)


def test_two_dimensions_reduce_to_one_for_classes_on_a_line():
    line, plane = tilted(OVERLAP, 0, 4.0), tilted(PAIR, 0, 4.0)
    (nodes, below), (along, across) = plane.marginals
    np.testing.assert_allclose(below, np.interp(nodes, *line.marginals[0]), atol=1e-4)
    # Simpson's rule over nodes a tenth of std apart.
    np.testing.assert_allclose(across, scipy.stats.norm.cdf(along, 0, 0.6), atol=5e-6)


def test_density_too_large_for_the_grid_is_refused():
    with pytest.raises(ValueError, match="does not fit on a grid"):
        tilted(ExactMixture((np.array([[0.0, 0.0]]), np.array([[900.0, 0.0]])), 0.1), 0, 2.0)
    with pytest.raises(ValueError, match="not 3"):
        tilted(ExactMixture((np.zeros((1, 3)),), 1.0), 0, 2.0)


def test_narrow_densities_are_resolved():
    # A class in the middle of two others is squeezed to a width of about std / sqrt(g).
    exact = ExactMixture((np.array([[0.0]]), np.array([[-1.0], [1.0]])), 1.0)
    found = tilted(exact, 0, 3000.0)
    spread = np.sqrt(
        np.sum(np.exp(found.log_density) * found.axes[0] ** 2) * np.diff(found.axes[0])[0]
    )
    # log p(x|c) - log p(x) falls as a x^2 / 2; the rest of the exponent is that of the class.
    curvature = 1 / (1 + math.exp(0.5))
    assert spread == pytest.approx((1 + 2999 * curvature) ** -0.5, rel=0.02)


def test_w1_on_a_grid_agrees_with_the_closed_form():
    x = np.random.default_rng(0).normal(size=300) * 0.5 + 0.3
    nodes, below = tilted(MANY, 0, 1.0).marginals[0]
    expected = mixture_w1(x, MANY.means[0][:, 0], 0.4)
    # The distribution function is linear between nodes of a fiftieth of std.
    assert grid_w1(x, nodes, below) == pytest.approx(expected, abs=1e-5)
    # The distance of a point beyond the grid is that to the mean.
    mean = float(MANY.means[0].mean())
    assert grid_w1(np.array([100.0]), nodes, below) == pytest.approx(100 - mean, abs=1e-6)


def test_tilt_distance_agrees_with_quantiles():
    g = 4.0
    by_class = [
        scipy.stats.wasserstein_distance(
            quantiles(tilted(MANY, k, 1.0), 100_000), quantiles(tilted(MANY, k, g), 100_000)
        )
        for k in range(3)
    ]
    assert tilt_distance(MANY, g) == pytest.approx(np.mean(by_class), abs=1e-4)
    assert tilt_distance(MANY, 1.0) == 0.0


def test_entropy_of_a_gaussian():
    rng = np.random.default_rng(0)
    for dim in (1, 2):
        x = 0.3 * rng.normal(size=(4000, dim))
        exact = dim / 2 * math.log(2 * math.pi * math.e * 0.09)
        # Its standard deviation is near 1 / sqrt(4000).
        assert entropy(x) == pytest.approx(exact, abs=0.06)


def test_entropy_of_equal_samples_is_finite_and_low():
    assert -30 < entropy(np.full((50, 1), 2.0)) < -10
    with pytest.raises(ValueError, match="at least 2"):
        entropy(np.zeros((1, 1)))


def compute(name, x, labels, exact, g):
    real = SampleSet(n=0, labels=np.zeros(0, np.int64), exact=exact)
    fake = at_guidance(vectors(x, labels), g)
    return METRICS[name]().compute(real=real, fake=fake, extractor="")


def drawn(exact, g, n, seed):
    """Samples of both classes from the tilted density, by inverting its distribution function."""
    u = np.random.default_rng(seed).random((2, n))
    parts = []
    for label in (0, 1):
        nodes, below = tilted(exact, label, g).marginals[0]
        parts.append(np.interp(u[label], below, nodes))
    return np.concatenate(parts)[:, None], np.repeat([0, 1], n)


def test_samples_of_the_tilted_density_have_distance_zero():
    x, labels = drawn(OVERLAP, 5.0, 2000, 0)
    w1, kl = (compute(name, x, labels, OVERLAP, 5.0) for name in ("w1_tilted", "kl_tilted"))
    assert w1.value < 0.03
    assert abs(kl.value) < 3 * kl.se
    # They differ from the class density by the tilt.
    assert class_w1(x, labels, OVERLAP) == pytest.approx(tilt_distance(OVERLAP, 5.0), abs=0.03)
    assert class_w1(x, labels, OVERLAP) > 5 * w1.value


def test_w1_tilted_equals_w1_at_scale_one():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 1)), np.arange(200) % 2
    real = SampleSet(n=0, labels=np.zeros(0, np.int64), exact=OVERLAP)
    plain = METRICS["w1"]().compute(real=real, fake=vectors(x, labels), extractor="")
    found = compute("w1_tilted", x, labels, OVERLAP, 1.0)
    assert found.value == pytest.approx(plain.value, abs=1e-5)
    assert found.se == pytest.approx(plain.se, rel=1e-3)


def test_kl_of_moved_gaussians_has_its_closed_form():
    z = 0.2 * np.random.default_rng(1).normal(size=4000)
    labels = np.repeat([0, 1], 2000)
    x = (np.where(labels == 0, 2.0, -2.0) + 0.3 + 1.5 * z)[:, None]
    # The classes are far apart, so the target is N(m, s^2) at any scale.
    exact = math.log(1 / 1.5) + (1.5**2 + (0.3 / 0.2) ** 2) / 2 - 0.5
    found = compute("kl_tilted", x, labels, APART, 9.0)
    assert found.value == pytest.approx(exact, abs=3 * found.se)


@pytest.mark.parametrize("name", ["w1_tilted", "kl_tilted"])
def test_errors_are_the_sampling_deviations(name):
    found = []
    for seed in range(60):
        x, labels = drawn(OVERLAP, 4.0, 100, seed)
        # Shifted, so that no distance is at the edge of its range.
        found.append(compute(name, x + 0.4, labels, OVERLAP, 4.0))
    # A deviation of 60 draws has an error of 9%, a standard error of 20 groups one of 16%.
    spread = np.std([f.value for f in found])
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.25)
    assert all(len(f.replicates) == 20 for f in found)


def test_two_dimensions():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    modes = np.where(labels == 0, 0.5, -0.5)
    x = np.stack([modes, np.zeros(600)], 1) + 0.6 * rng.normal(size=(600, 2))
    assert compute("w1_tilted", x, labels, PAIR, 1.0).value == pytest.approx(
        class_w1(x, labels, PAIR), abs=1e-3
    )
    kl = compute("kl_tilted", x, labels, PAIR, 1.0)
    assert abs(kl.value) < 3 * kl.se


@pytest.mark.parametrize("name", ["w1_tilted", "kl_tilted"])
def test_refusals(name):
    metric = METRICS[name]()
    x, labels = drawn(OVERLAP, 1.0, 20, 0)
    real = SampleSet(n=0, labels=np.zeros(0, np.int64), exact=OVERLAP)
    with pytest.raises(ValueError, match="guidance scale is known"):
        metric.compute(real=real, fake=vectors(x, labels), extractor="")
    space = ExactMixture((np.zeros((1, 3)),), 1.0)
    reason = metric.supports(domain="vector", extractor=None, exact=space)
    assert "1 or 2 dimensions" in reason
    assert metric.supports(domain="vector", extractor=None, exact=OVERLAP) is None
    assert "exact density" in metric.supports(domain="vector", extractor=None, exact=None)


def test_at_guidance_keeps_all_fields():
    x, labels = drawn(OVERLAP, 1.0, 20, 0)
    plain = vectors(x, labels, OVERLAP)
    guided = at_guidance(plain, 3.0)
    assert guided.guidance == 3.0
    for field in dataclasses.fields(SampleSet):
        assert getattr(guided, field.name) is getattr(plain, field.name)
