import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from metrics.base import Moments, SampleSet
from metrics.errors import jackknife, jackknife_groups
from metrics.frechet import FrechetDistance, frechet_distance
from metrics.moments import moments_of

from .helpers import vectors


def features(n, dim, seed, scale=1.0):
    # ReLU of a mixed Gaussian: correlated and skewed, like network features.
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return np.maximum(scale * rng.normal(size=(n, dim)) @ mix + 0.2, 0).astype(np.float32)


def sqrtm_distance(a: Moments, b: Moments) -> float:
    # The formula in the TTUR code and clean-fid.
    root = scipy.linalg.sqrtm(a.cov @ b.cov)
    step = a.mean - b.mean
    return float(step @ step + np.trace(a.cov) + np.trace(b.cov) - 2 * np.trace(root).real)


@pytest.mark.parametrize("dim", [3, 64, 200])
def test_agrees_with_torch_fidelity_and_sqrtm(dim):
    real, fake = features(900, dim, 1), features(700, dim, 2, scale=1.3)
    ours = frechet_distance(moments_of(real), moments_of(fake))
    # float64 features, since torch-fidelity averages in the dtype of its input.
    stats = [
        fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (real, fake)
    ]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours == pytest.approx(sqrtm_distance(moments_of(real), moments_of(fake)), rel=1e-6)


@pytest.mark.parametrize("power", [0, 1, 2, 4])
def test_identical_moments_have_distance_zero_for_any_spectrum(power):
    # Flat spectra use the eigenvalues; steep ones, whose roots would lose digits, the norm.
    dim = 300
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    cov = (turn * np.arange(1.0, dim + 1) ** -power) @ turn.T
    moments = Moments(1000, np.zeros(dim), (cov + cov.T) / 2)
    assert 0 <= frechet_distance(moments, moments) <= 1e-8 * np.trace(cov)
    # The distance to twice the covariance is (sqrt 2 - 1)^2 of the trace.
    double = Moments(1000, np.zeros(dim), 2 * moments.cov)
    expected = (np.sqrt(2) - 1) ** 2 * np.trace(cov)
    assert frechet_distance(moments, double) == pytest.approx(expected, rel=1e-7)


def test_rank_deficient_covariance_on_one_side():
    # They commute: the distance is sum (sqrt a - sqrt b)^2. The second has half the rank.
    dim = 40
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    a = np.linspace(1.0, 2.0, dim)
    b = np.where(np.arange(dim) < 20, 0.5, 0.0)
    one, two = (Moments(99, np.zeros(dim), (turn * v) @ turn.T) for v in (a, b))
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-10)


def test_two_known_gaussians():
    # Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2.
    a, b = np.array([4.0, 1.0, 0.0]), np.array([1.0, 9.0, 0.25])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    one = Moments(10, np.zeros(3), turn @ np.diag(a) @ turn.T)
    two = Moments(10, np.array([1.0, 2.0, 2.0]), turn @ np.diag(b) @ turn.T)
    expected = 9.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)


def test_two_gaussians_that_do_not_commute():
    # In two dimensions tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    one = Moments(10, np.zeros(2), np.array([[2.0, 0.5], [0.5, 1.0]]))
    two = Moments(10, np.zeros(2), np.array([[1.0, -0.7], [-0.7, 3.0]]))
    product = one.cov @ two.cov
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(one.cov) + np.trace(two.cov) - 2 * root
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "dim"), [(500, 64), (40, 64), (40, 300), (2, 5)])
@pytest.mark.parametrize("kept", [False, True])
def test_identical_sets_have_distance_zero(n, dim, kept):
    x = features(n, dim, 3)
    moments = moments_of(x)
    given = {"real_features": x, "fake_features": x} if kept else {}
    value = frechet_distance(moments, moments, **given)
    assert 0 <= value <= 1e-8 * np.trace(moments.cov)
    other = moments_of(x[::-1].copy())
    assert frechet_distance(moments, other, **given) <= 1e-8 * np.trace(moments.cov)


@pytest.mark.parametrize("sizes", [(40, 40), (40, 900), (900, 40)])
def test_fewer_samples_than_dimensions(sizes):
    dim = 120
    real, fake = features(sizes[0], dim, 4), features(sizes[1], dim, 5)
    moments = moments_of(real), moments_of(fake)
    centred = [
        (x.astype(np.float64) - x.astype(np.float64).mean(0)) / np.sqrt(len(x) - 1)
        for x in (real, fake)
    ]
    nuclear = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    step = moments[0].mean - moments[1].mean
    expected = step @ step + sum(np.trace(m.cov) for m in moments) - 2 * nuclear
    by_features = frechet_distance(*moments, real_features=real, fake_features=fake)
    assert by_features == pytest.approx(expected, rel=1e-10)
    # The root of a singular covariance, truncated to its rank, loses only a few digits.
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)


def test_shift_rotation_order_and_symmetry():
    real, fake = (features(400, 20, seed).astype(np.float64) for seed in (6, 7))
    base = frechet_distance(moments_of(real), moments_of(fake))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    for a, b in [
        (real + 1e3, fake + 1e3),
        (real @ turn, fake @ turn),
        (real[::-1], fake[np.random.default_rng(0).permutation(400)]),
        (fake, real),
    ]:
        assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(base, rel=1e-9)
    step = np.arange(20) / 10
    moved = frechet_distance(moments_of(real), moments_of(real + step))
    assert moved == pytest.approx(step @ step, rel=1e-9)


def test_equal_gaussians_have_the_known_bias():
    # E = (1/n1 + 1/n2) (d + d (d + 1) / 4) to first order. 40 draws have an error of 1.5%; the
    # second order is below 3%.
    rng = np.random.default_rng(0)
    n, dim = 500, 16
    values = [
        frechet_distance(*(moments_of(rng.normal(size=(n, dim))) for _ in range(2)))
        for _ in range(40)
    ]
    assert np.mean(values) == pytest.approx(2 / n * (dim + dim * (dim + 1) / 4), rel=0.06)


def test_collapsed_set():
    x = features(50, 8, 1)
    real, fake = moments_of(x), moments_of(np.ones((30, 8)))
    step = real.mean - 1
    assert frechet_distance(real, fake) == pytest.approx(step @ step + np.trace(real.cov))
    assert frechet_distance(fake, fake) == 0.0


@pytest.mark.parametrize(("n", "dim"), [(203, 12), (45, 44), (30, 64)])
def test_replicates_are_distances_without_their_group(n, dim):
    # More samples than dimensions, about as many, and fewer.
    real, fake = features(150, dim, 1), features(n, dim, 2)
    labels = np.arange(n) % 3
    sets = {"real": vectors(real), "fake": vectors(fake, labels)}
    found = FrechetDistance().compute(**sets, extractor="identity")
    groups = jackknife_groups(labels)
    direct = [
        frechet_distance(
            moments_of(real),
            moments_of(fake[groups != group]),
            fake_features=fake[groups != group],
        )
        for group in range(20)
    ]
    np.testing.assert_allclose(found.replicates, direct, rtol=1e-8)
    assert found.se == pytest.approx(jackknife(direct, found.value, np.bincount(groups)).se)


def test_error_is_the_sampling_deviation():
    # The reference is fixed; the generated set is drawn again, with different moments.
    rng = np.random.default_rng(0)
    real = vectors(rng.normal(size=(2000, 6)))
    found = [
        FrechetDistance().compute(
            real=real, fake=vectors(1.3 * rng.normal(size=(400, 6)) + 0.3), extractor="identity"
        )
        for _ in range(150)
    ]
    # A deviation of 150 draws has an error of 6%, a standard error of 20 groups one of 16%.
    spread = np.std([f.value for f in found])
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.18)


def test_error_without_features_or_samples_is_none():
    full = vectors(features(30, 4, 1))
    streamed = SampleSet(full.n, full.labels, moments=full.moments)
    found = FrechetDistance().compute(real=streamed, fake=streamed, extractor="identity")
    assert (found.value, found.se, found.replicates) == (pytest.approx(0, abs=1e-8), None, ())
    assert FrechetDistance().compute(real=streamed, fake=full, extractor="identity").se > 0
    two = vectors(features(2, 4, 1))
    assert FrechetDistance().compute(real=full, fake=two, extractor="identity").se is None


def test_metric_takes_the_features_of_the_extractor():
    real, fake = features(30, 64, 1), features(40, 64, 2)
    expected = frechet_distance(moments_of(real), moments_of(fake))
    sets = {"real": vectors(real), "fake": vectors(fake)}
    found = FrechetDistance().compute(**sets, extractor="identity")
    assert found.value == pytest.approx(expected)
    assert len(found.replicates) == 20
    assert found.se_method == "jackknife, 20 groups"
    with pytest.raises(ValueError, match=r"no moments of extractor 'other'; it has: identity"):
        FrechetDistance().compute(**sets, extractor="other")


def test_shapes_that_do_not_match_are_refused():
    a, b = moments_of(features(10, 3, 0)), moments_of(features(10, 4, 0))
    with pytest.raises(ValueError, match="real features have 3 dimensions, generated ones 4"):
        frechet_distance(a, b)
    small = moments_of(features(3, 4, 0))
    with pytest.raises(ValueError, match="do not belong"):
        frechet_distance(b, small, fake_features=features(2, 4, 0))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            frechet_distance(a, Moments(10, np.array([0, bad, 0]), np.eye(3)))
    broken = Moments(10, np.zeros(3), np.diag([1.0, -1.0, 1.0]))
    with pytest.raises(ArithmeticError, match="valid"):
        frechet_distance(broken, broken)
