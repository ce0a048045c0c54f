import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric, mmd2

from metrics import METRICS
from metrics.base import SampleSet
from metrics.errors import jackknife, jackknife_groups, paired_difference
from metrics.kid import (
    KernelDistance,
    KernelDistanceSubsets,
    kernel_distance,
    kernel_distance_subsets,
)
from metrics.mmd import PolynomialKernel, squared_mmd

from .helpers import vectors


def features(n, dim, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, dim)) + shift, 0).astype(np.float32)


def groups(n):
    return jackknife_groups(np.zeros(n, int))


def kid(real, fake):
    return kernel_distance(real, fake, groups(len(real)), groups(len(fake)))


def direct(real, fake):
    """The definition, by sums over all pairs."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    inside = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return inside - 2 * xy.mean()


@pytest.mark.parametrize("dim", [1, 16, 300])
@pytest.mark.parametrize("sizes", [(70, 70), (40, 101), (101, 40), (2, 3)])
def test_agrees_with_sums_over_pairs(dim, sizes):
    real, fake = features(sizes[0], dim, 1), features(sizes[1], dim, 2, 0.3)
    # Above 256 dimensions products are in float32: 1e-7 of kernels of about 2.
    tolerance = 1e-12 if dim <= 256 else 1e-6
    assert kid(real, fake).value == pytest.approx(direct(real, fake), abs=tolerance)


def test_agrees_with_torch_fidelity_for_equal_sizes():
    real, fake = features(200, 32, 1), features(200, 32, 2, 0.2)
    a, b = fake.astype(np.float64), real.astype(np.float64)
    kernels = [(p @ q.T / 32 + 1) ** 3 for p, q in ((a, a), (a, b), (b, b))]
    assert kid(real, fake).value == pytest.approx(mmd2(*kernels), rel=1e-9)


def test_constant_vectors():
    # k = (a b / D + 1)^3 of constant vectors a 1, b 1 is (a b + 1)^3 whatever D is.
    real, fake = np.full((5, 7), 1.0, np.float32), np.full((9, 7), 2.0, np.float32)
    assert kid(real, fake).value == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    found = kid(real, real)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.fake_se == pytest.approx(0.0, abs=1e-12)


def test_cubic_kernel_compares_three_moments():
    # With D = 1: sum over j of C(3, j) (m_j - m'_j)^2 of the raw moments, on average. x = 1 or 3
    # with equal shares against x = 2: moments 2, 5, 14 against 2, 4, 8.
    rng = np.random.default_rng(0)
    real = rng.choice([1.0, 3.0], size=(4000, 1)).astype(np.float32)
    fake = np.full((50, 1), 2.0, np.float32)
    moments = [np.mean(real**j) - 2.0**j for j in (1, 2, 3)]
    v = 3 * moments[0] ** 2 + 3 * moments[1] ** 2 + moments[2] ** 2
    assert kid(real, fake).value == pytest.approx(v, rel=2e-3)
    assert kid(real, fake).value == pytest.approx(39.0, rel=0.1)


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_block_size_does_not_change_the_result(block):
    real, fake = features(90, 20, 1), features(61, 20, 2)
    kernel = PolynomialKernel(20)
    found = squared_mmd(real, fake, groups(90), groups(61), kernel, unbiased=True, block_rows=block)
    whole = kid(real, fake)
    assert found.value == pytest.approx(whole.value, abs=1e-12)
    assert found.fake_se == pytest.approx(whole.fake_se, rel=1e-9)
    assert found.real_se == pytest.approx(whole.real_se, rel=1e-9)
    np.testing.assert_allclose(found.replicates, whole.replicates, atol=1e-12)


def test_order_and_rotation_do_not_matter():
    real, fake = features(50, 8, 1), features(40, 8, 2)
    base = kid(real, fake).value
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype(np.float32)
    assert kid(real[::-1], fake[::-1]).value == pytest.approx(base, abs=1e-12)
    assert kid(real @ turn, fake @ turn).value == pytest.approx(base, abs=1e-6)


def test_replicates_are_values_without_their_group():
    real, fake = features(50, 8, 1), features(47, 8, 2, 0.2)
    found = kid(real, fake)
    expected = [direct(real, fake[groups(47) != g]) for g in range(20)]
    np.testing.assert_allclose(found.replicates, expected, atol=1e-12)
    # A U-statistic has no bias, so the jackknife finds none.
    sizes = np.bincount(groups(47))
    corrected = jackknife(found.replicates, found.value, sizes).corrected
    assert corrected == pytest.approx(found.value, abs=2e-3)


def test_errors_are_the_sampling_deviations():
    real = features(1500, 8, 0)
    real.setflags(write=False)  # its own sums are remembered
    found = [kid(real, features(200, 8, seed, 0.2)) for seed in range(1, 151)]
    # A deviation of 150 draws has an error of 6%.
    spread = np.std([f.value for f in found])
    assert np.mean([f.fake_se for f in found]) == pytest.approx(spread, rel=0.18)
    jackknifed = [jackknife(f.replicates, f.value).se for f in found]
    assert np.mean(jackknifed) == pytest.approx(spread, rel=0.18)
    # And of the reference set, with the sides exchanged.
    exchanged = kid(features(200, 8, 1, 0.2), real)
    assert exchanged.real_se == pytest.approx(found[0].fake_se, rel=1e-9)


def test_equal_distributions_give_zero_on_average():
    values = [kid(features(80, 6, 2 * s), features(120, 6, 2 * s + 1)).value for s in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_subsets_agree_with_torch_fidelity():
    real, fake = features(150, 12, 1), features(120, 12, 2, 0.1)
    # float64 features, since torch-fidelity computes in the dtype it is given.
    theirs = kid_features_to_metric(
        torch.from_numpy(fake.astype(np.float64)),
        torch.from_numpy(real.astype(np.float64)),
        kid_subsets=8,
        kid_subset_size=50,
        verbose=False,
    )
    mean, deviation = kernel_distance_subsets(real, fake, subsets=8, size=50)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_metrics():
    real, fake = vectors(features(1100, 4, 1)), vectors(features(1050, 4, 2, 0.2))
    sets = {"real": real, "fake": fake, "extractor": "identity"}
    whole, subsets = KernelDistance().compute(**sets), KernelDistanceSubsets().compute(**sets)
    assert whole.se_method == "Hajek"
    assert len(whole.replicates) == 20
    # Subsets of nearly the whole set differ little, and their error is not smaller.
    assert subsets.value == pytest.approx(whole.value, rel=0.02)
    assert whole.se < subsets.se < 1.1 * whole.se
    assert (KernelDistance.label, KernelDistanceSubsets.default) == ("KID", False)


def test_common_noise_makes_differences_exact():
    real, noise = features(300, 8, 0), np.random.default_rng(1).normal(size=(200, 8))
    a, b = (
        KernelDistance().compute(
            real=vectors(real), fake=vectors(np.maximum(noise + s, 0)), extractor="identity"
        )
        for s in (0.2, 0.22)
    )
    assert paired_difference(a, b).se < np.hypot(a.se, b.se) / 4


def test_refusals():
    a = features(10, 3, 0)
    with pytest.raises(ValueError, match=r"shapes \(10, 3\) and \(10, 4\) do not compare"):
        kid(a, features(10, 4, 0))
    with pytest.raises(ValueError, match="2 samples per set, got 10 real and 1 generated"):
        kid(a, a[:1])
    with pytest.raises(ValueError, match="overflows"):
        kid(a, np.full((4, 3), 1e38, np.float32).astype(np.float64) ** 3)
    with pytest.raises(ValueError, match="subsets of 50 cannot be drawn from 10 real"):
        kernel_distance_subsets(a, a, size=50)


def test_subsets_refuse_a_reference_smaller_than_a_subset():
    few, enough = (
        SampleSet(n=n, labels=np.zeros(n, np.int64), features={"x": features(n, 2, 0)})
        for n in (999, 1000)
    )
    reason = METRICS["kid_subsets"]().refuses(real=few, extractor="x")
    assert reason == "kid_subsets needs 1000 real samples, there are 999"
    assert METRICS["kid_subsets"]().refuses(real=enough, extractor="x") is None
    assert "features of real samples" in METRICS["kid"]().refuses(real=enough, extractor="y")


@pytest.mark.parametrize("size", [1e4, 1e6, 1e7])
def test_far_sample_costs_no_digits(size):
    real, fake = features(50, 8, 1), features(50, 8, 2)
    fake[7] = size
    fake[7, ::2] *= -1  # its kernels with the others are small beside that with itself
    x, y = real.astype(np.longdouble), fake.astype(np.longdouble)
    xx, yy, xy = ((a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    exact = xx.sum() / (50 * 49) + yy.sum() / (50 * 49) - 2 * xy.mean()
    found = kid(real, fake)
    assert found.value == pytest.approx(float(exact), rel=1e-9)
    group = groups(50)[7]
    left = groups(50) != group
    without = yy[np.ix_(left, left)].sum() / (left.sum() * (left.sum() - 1))
    exact = xx.sum() / (50 * 49) + without - 2 * xy[:, left].mean()
    assert found.replicates[group] == pytest.approx(float(exact), rel=1e-9)
