import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from metrics.errors import jackknife_groups, paired_difference
from metrics.mind import SlicedWasserstein, directions, sliced_distance

from .helpers import vectors


def groups(n):
    return jackknife_groups(np.zeros(n, int))


def sliced(real, fake, **options):
    return sliced_distance(real, fake, groups(len(fake)), **options)


def test_shift_gives_its_squared_length():
    # Per direction it is (shift . u)^2, with mean |shift|^2 / D and the stated projection error.
    x = np.random.default_rng(0).normal(size=(300, 20))
    shift = np.linspace(0, 1, 20)
    found = sliced(x, x + shift)
    truth = shift @ shift
    assert found.value == pytest.approx(truth, abs=4 * found.projection_se)
    # D (shift . u)^2 is nearly |shift|^2 times a chi-square of one degree: sd root 2.
    assert found.projection_se == pytest.approx(truth * np.sqrt(2 / 1000), rel=0.15)
    exact = 20 * ((directions(20) @ shift) ** 2).mean()
    assert found.value == pytest.approx(exact, rel=1e-5)
    # A replicate is larger: the shifted copy lacks a group that the original still has.
    assert found.sampling_se < 0.2 * truth


def test_one_dimension_is_exact_for_unequal_sizes():
    # 0, 1 against 0, 1, 2: steps at thirds and at a half, (0, 0, 1, 1)^2 over 1/3 1/6 1/6 1/3.
    real, fake = np.array([[1.0], [0.0]]), np.array([[2.0], [0.0], [1.0]])
    assert sliced(real, fake).value == pytest.approx(1 / 6 + 1 / 3, rel=1e-6)
    assert sliced(real, fake).projection_se == pytest.approx(0.0, abs=1e-6)
    # Repeating every sample does not change the distribution.
    x = np.random.default_rng(0).normal(size=(30, 1))
    assert sliced(np.repeat(x, 3, axis=0), np.repeat(x, 5, axis=0)).value < 1e-12


def test_agrees_with_scipy_on_sorted_differences():
    # W1 of scipy for unequal sizes checks the pieces: with |step| <= W2 and W2^2 >= W1^2.
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(37, 1)), rng.normal(size=(53, 1)) + 5
    fine = np.lcm(37, 53)
    x = np.repeat(np.sort(real[:, 0]), fine // 37)
    y = np.repeat(np.sort(fake[:, 0]), fine // 53)
    assert np.abs(x - y).mean() == pytest.approx(wasserstein_distance(real[:, 0], fake[:, 0]))
    assert sliced(real, fake).value == pytest.approx(((x - y) ** 2).mean(), rel=1e-5)


def test_two_round_gaussians():
    # W2^2 per direction is |shift . u|^2 + (s - 1)^2, so D times its mean is |shift|^2 + D (s-1)^2.
    rng = np.random.default_rng(0)
    dim, n = 6, 4000
    found = sliced(rng.normal(size=(n, dim)), 1.5 * rng.normal(size=(n, dim)) + 0.4)
    truth = dim * (0.4**2 + 0.5**2)
    error = np.hypot(found.sampling_se, found.projection_se)
    # The sampling of the real set and the bias of about 1/n come on top.
    assert found.value == pytest.approx(truth, abs=5 * error)


def test_common_shift_order_and_size_of_blocks():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(50, 7)), rng.normal(size=(41, 7)) + 0.3
    base = sliced(real, fake).value
    assert sliced(real[::-1], fake[::-1]).value == pytest.approx(base, rel=1e-9)
    assert sliced(real + 1e3, fake + 1e3).value == pytest.approx(base, rel=1e-5)
    assert sliced(fake, real).value == pytest.approx(base, rel=1e-5)
    assert sliced(real, real).value == pytest.approx(0.0, abs=1e-12)
    assert sliced(real, fake, seed=1).value != base
    # Few directions have a large projection error.
    few = sliced(real, fake, projections=20)
    assert few.projection_se > 3 * sliced(real, fake).projection_se


def test_replicates_are_values_without_their_group():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(50, 4)), rng.normal(size=(43, 4)) + 0.3
    found = sliced(real, fake, projections=70)
    for group in (0, 2, 19):
        left = sliced(real, fake[groups(43) != group], projections=70)
        assert found.replicates[group] == pytest.approx(left.value, rel=1e-5)


def test_sampling_error_is_the_sampling_deviation():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(600, 3))
    found = [sliced(real, rng.normal(size=(200, 3)) + 0.7, projections=100) for _ in range(60)]
    spread = np.std([f.value for f in found])
    # A deviation of 60 draws has an error of 9%; the directions are the same each time.
    assert np.mean([f.sampling_se for f in found]) == pytest.approx(spread, rel=0.25)


def test_metric():
    rng = np.random.default_rng(0)
    real, noise = vectors(rng.normal(size=(80, 5))), rng.normal(size=(60, 5))
    a, b = (
        SlicedWasserstein().compute(real=real, fake=vectors(noise + s), extractor="identity")
        for s in (0.5, 0.52)
    )
    parts = sliced_distance(
        real.features["identity"], vectors(noise + 0.5).features["identity"], groups(60)
    )
    assert a.value == parts.value
    assert a.se == pytest.approx(np.hypot(parts.sampling_se, parts.projection_se))
    assert paired_difference(a, b).se < a.se / 5
    assert not SlicedWasserstein.default


def test_refusals():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="do not compare"):
        sliced(x, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="3 generated"):
        sliced(x, x[:2])
    with pytest.raises(ValueError, match="NaN"):
        sliced(x, x + np.nan)
