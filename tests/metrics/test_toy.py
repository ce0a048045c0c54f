import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from scipy.special import ndtr, ndtri

from metrics.base import ExactMixture
from metrics.registry import METRICS
from metrics.toy import class_shift, class_w1, is_within, mixture_w1

from .helpers import vectors

STD = 0.2
MODES_1D = ExactMixture((np.array([[2.0]]), np.array([[-2.0]])), STD)


def quantile_samples(n, mean=0.0, std=1.0):
    return mean + std * ndtri((np.arange(n) + 0.5) / n)


def pair(n, outward=0.0, spread=1.0):
    """Evenly spread samples of both classes, shifted outward by `outward` std."""
    z = STD * (quantile_samples(n) * spread + outward)
    x = np.concatenate([2 + z, -2 - z])[:, None]
    return x, np.repeat([0, 1], n)


def estimate(name, x, labels, exact):
    real = vectors(x, labels, exact)
    return METRICS[name]().compute(real=real, fake=vectors(x, labels), extractor="")


def compute(name, x, labels, exact):
    return estimate(name, x, labels, exact).value


@pytest.mark.parametrize("modes", [[0.0], [-1.0, 1.5], [-2.0, 0.0, 0.3]])
def test_w1_agrees_with_scipy_on_many_quantiles(modes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=137) * 1.7 + 0.4
    exact = np.concatenate([quantile_samples(100_000, mode, 0.5) for mode in modes])
    ours = mixture_w1(x, np.array(modes), 0.5)
    # 1e5 quantiles approximate the density with an error of a few 1e-6.
    assert ours == pytest.approx(scipy.stats.wasserstein_distance(x, exact), abs=1e-5)


@pytest.mark.parametrize("modes", [[0.3], [-1.0, 1.5]])
def test_w1_agrees_with_numerical_integration(modes):
    x = np.sort(np.random.default_rng(1).normal(size=9))
    std = 0.7

    def difference(t):
        cdf = np.mean([ndtr((t - mode) / std) for mode in modes])
        return abs(np.searchsorted(x, t, side="right") / len(x) - cdf)

    edges = [-12.0, *x, 12.0]
    total = sum(
        scipy.integrate.quad(difference, a, b, limit=200, epsabs=1e-12)[0]
        for a, b in itertools.pairwise(edges)
    )
    assert mixture_w1(x, np.array(modes), std) == pytest.approx(total, abs=1e-9)


def test_w1_closed_forms():
    # A point at the mean: E|X| = std sqrt(2 / pi); a far point: its distance.
    one = np.array([0.0])
    assert mixture_w1(np.array([5.0]), one + 5, 0.3) == pytest.approx(0.3 * np.sqrt(2 / np.pi))
    assert mixture_w1(np.array([100.0] * 3), one, 1.0) == pytest.approx(100.0, rel=1e-12)
    # Scaling a Gaussian by s: |s - 1| std sqrt(2 / pi); the quantiles approximate it to 1e-4.
    x = quantile_samples(50_000, 1.0, 0.6)
    assert mixture_w1(x, one + 1, 0.2) == pytest.approx(0.4 * np.sqrt(2 / np.pi), abs=1e-4)
    assert mixture_w1(x + 0.7, one + 1, 0.6) == pytest.approx(0.7, abs=1e-4)


def test_modes_1d():
    # float32 samples at +-2 have rounding errors of 1e-7, which is 1e-6 std.
    x, labels = pair(20_000)
    assert compute("w1", x, labels, MODES_1D) < 1e-4
    assert compute("shift", x, labels, MODES_1D) == pytest.approx(0.0, abs=1e-5)
    assert compute("within3", x, labels, MODES_1D) == pytest.approx(0.9973, abs=1e-4)


@pytest.mark.parametrize("outward", [-0.5, 2.88])
def test_modes_1d_moved(outward):
    x, labels = pair(20_000, outward)
    assert compute("shift", x, labels, MODES_1D) == pytest.approx(outward, abs=1e-5)
    assert compute("w1", x, labels, MODES_1D) == pytest.approx(abs(outward) * STD, abs=1e-4)
    inside = ndtr(3 - outward) - ndtr(-3 - outward)
    assert compute("within3", x, labels, MODES_1D) == pytest.approx(inside, abs=1e-4)


def test_classes_weigh_the_same():
    few, many = pair(500)[0][:500], pair(5000)[0][5000:] - 1.0
    x, labels = np.concatenate([few, many]), np.repeat([0, 1], [500, 5000])
    assert class_w1(x, labels, MODES_1D) == pytest.approx(0.5, abs=0.005)
    assert class_shift(x, labels, MODES_1D) == pytest.approx(2.5, abs=0.005)


def test_labels_matter():
    x, labels = pair(1000)
    assert class_w1(x, 1 - labels, MODES_1D) == pytest.approx(4.0, abs=1e-3)
    assert is_within(x, 1 - labels, MODES_1D).mean() == 0.0
    assert class_w1(x[:1000], labels[:1000], MODES_1D) < 1e-3


def test_two_dimensions_and_several_modes():
    rng = np.random.default_rng(0)
    exact = ExactMixture(
        (np.array([[2.0, 2.0], [2.0, -2.0]]), np.array([[-2.0, 2.0], [-2.0, -2.0]])), 0.3
    )
    labels = rng.integers(0, 2, 40_000)
    means = np.stack(exact.means)[labels, rng.integers(0, 2, 40_000)]
    x = means + 0.3 * rng.normal(size=means.shape)
    # Modes are drawn: the share of one has an error of 1 / sqrt(20000), and they are 4 apart.
    assert class_w1(x, labels, exact) < 0.05
    assert class_shift(x, labels, exact) == pytest.approx(0.0, abs=0.05)
    # 1 - exp(-9 / 2) with the binomial error of 40000.
    assert is_within(x, labels, exact).mean() == pytest.approx(0.98889, abs=0.003)
    moved = x + 0.6 * np.sign(means[:, :1]) * np.array([1.0, 0.0])
    assert class_shift(moved, labels, exact) == pytest.approx(2.0, abs=0.05)


def test_diagonal_overshoot_is_measured_along_the_diagonal():
    exact = ExactMixture((np.array([[2.0, 2.0]]),), 0.2)
    x = np.full((4, 2), 2 + 0.2 * 3 / np.sqrt(2))
    assert class_shift(x, np.zeros(4, int), exact) == pytest.approx(3.0)
    assert is_within(x, np.zeros(4, int), exact, radius=3.001).mean() == 1.0
    assert is_within(x, np.zeros(4, int), exact, radius=2.999).mean() == 0.0


def test_diverged_samples_give_large_numbers():
    x, labels = pair(50)
    assert class_w1(x * 1e8, labels, MODES_1D) == pytest.approx(2e8, rel=1e-3)
    assert is_within(x * 1e8, labels, MODES_1D).mean() == 0.0


def test_supports():
    def reason(name, exact, domain="vector"):
        return METRICS[name]().supports(domain=domain, extractor=None, exact=exact)

    centred = ExactMixture((np.array([[-1.0], [1.0]]),), 0.1)
    for name in ("w1", "shift", "within3"):
        assert reason(name, MODES_1D) is None
        assert "exact density" in reason(name, None)
        assert "vector data" in reason(name, MODES_1D, "image")
    assert "no direction" in reason("shift", centred)
    assert reason("w1", centred) is None


def test_refusals():
    x, labels = pair(5)
    with pytest.raises(ValueError, match="labels from 2 to 3 for 2 classes"):
        class_w1(x, labels + 2, MODES_1D)
    with pytest.raises(ValueError, match="dimension 1"):
        class_shift(np.zeros((10, 2)), labels, MODES_1D)
    with pytest.raises(ValueError, match="no direction"):
        class_shift(x, labels * 0, ExactMixture((np.array([[0.0]]),), 1.0))
    with pytest.raises(ValueError, match="exact density is known"):
        compute("w1", x, labels, None)
    with pytest.raises(ValueError, match="std > 0"):
        mixture_w1(x[:, 0], np.zeros(1), 0.0)


@pytest.mark.parametrize("name", ["w1", "shift", "within3"])
def test_errors_are_the_sampling_deviations(name):
    # Spread and shifted, so that no statistic is at an edge of its range.
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    sign = np.array([1.0, -1.0])[labels]
    found = []
    for _ in range(100):
        z = 1.5 * rng.normal(size=200) + 0.5
        found.append(estimate(name, (sign * (2 + STD * z))[:, None], labels, MODES_1D))
    # A deviation of 100 draws has an error of 7%, a standard error of 20 groups one of 16%.
    spread = np.std([f.value for f in found])
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.2)
    assert all(len(f.replicates) == 20 for f in found)


def test_two_samples_have_no_error():
    x, labels = np.array([[2.0], [-2.0]]), np.array([0, 1])
    assert estimate("w1", x, labels, MODES_1D).se is None
    assert estimate("shift", x, labels, MODES_1D).replicates == ()
