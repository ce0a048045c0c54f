import numpy as np
import pytest
from scipy.stats import binomtest, t

from metrics.base import Estimate
from metrics.errors import (
    jackknife,
    jackknife_groups,
    mean_estimate,
    paired_difference,
    seeds_se,
    share_estimate,
    wilson,
)


def test_groups_of_one_class_are_equal_and_reproducible():
    groups = jackknife_groups(np.zeros(45, int))
    np.testing.assert_array_equal(np.bincount(groups), [3] * 5 + [2] * 15)
    np.testing.assert_array_equal(groups, jackknife_groups(np.ones(45, int)))
    assert sorted(jackknife_groups(np.zeros(3, int))) == [0, 1, 2]
    # Replicates in existing files belong to these groups, so they must not change.
    np.testing.assert_array_equal(groups[:8], [2, 1, 4, 2, 7, 7, 8, 18])


@pytest.mark.parametrize("n", [300, 301, 50])
def test_groups_hold_a_share_of_every_class(n):
    labels = np.arange(n) % 10
    groups = jackknife_groups(labels)
    counts = np.zeros((20, 10), int)
    np.add.at(counts, (groups, labels), 1)
    assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(groups)) <= 1
    assert not groups.flags.writeable


def test_alternating_classes_do_not_inflate_the_error():
    # Ten classes at 0..9 without spread: every balanced set has exactly the same mean.
    labels = np.arange(200) % 10
    values = labels.astype(float)

    def error(groups):
        left = [values[groups != group].mean() for group in range(20)]
        return jackknife(left, values.mean()).se

    assert error(np.arange(200) % 20) > 0.6
    assert error(jackknife_groups(labels)) == pytest.approx(0.0, abs=1e-12)
    # Without labels the error is that of independent draws.
    blind = error(jackknife_groups(labels * 0))
    assert blind == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=0.5)


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=20)
    left = (x.sum() - x) / 19
    se, corrected = jackknife(left, x.mean())
    assert se == pytest.approx(x.std(ddof=1) / np.sqrt(20), rel=1e-12)
    assert corrected == pytest.approx(x.mean(), rel=1e-12)


def test_jackknife_removes_the_bias_of_a_variance():
    x = np.random.default_rng(0).normal(size=30)
    left = [np.delete(x, i).var() for i in range(30)]
    assert jackknife(left, x.var()).corrected == pytest.approx(x.var(ddof=1), rel=1e-12)


def test_unequal_groups():
    # For any groups the mean has no bias, and c/n is removed exactly.
    x = np.random.default_rng(0).normal(size=47)
    groups = np.arange(47) % 20
    sizes = np.bincount(groups)
    left = np.array([x[groups != g].mean() for g in range(20)])
    assert jackknife(left, x.mean(), sizes).corrected == pytest.approx(x.mean(), rel=1e-12)
    biased = jackknife(3.0 / (47 - sizes), 3.0 / 47, sizes)
    assert biased.corrected == pytest.approx(0.0, abs=1e-14)


def test_jackknife_error_is_the_sampling_deviation():
    rng = np.random.default_rng(0)
    n, found, ses = 203, [], []
    for _ in range(400):
        x = rng.exponential(size=n)
        groups = jackknife_groups(np.zeros(n, int))
        left = [x[groups != g].std() for g in range(20)]
        found.append(x.std())
        ses.append(jackknife(left, x.std(), np.bincount(groups)).se)
    # A deviation of 400 draws has an error of 3.5%; 1/n terms of this skewed law are as large.
    assert np.sqrt(np.mean(np.square(ses))) == pytest.approx(np.std(found), rel=0.12)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 4), (81, 263), (1, 1000), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_wilson_agrees_with_scipy(k, n, confidence):
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand():
    # z^2 = 3.841459: for 0 of 10 the upper end is z^2 / (10 + z^2).
    assert wilson(0, 10) == pytest.approx((0.0, 3.841459 / 13.841459), rel=1e-6)
    assert wilson(10, 10)[1] == 1.0


def test_mean_and_share():
    values = np.random.default_rng(0).normal(size=41)
    groups = jackknife_groups(np.zeros(41, int))
    found = mean_estimate(values, groups, unit=2.0)
    assert found.value == pytest.approx(values.mean() / 2)
    assert found.se == pytest.approx(values.std(ddof=1) / np.sqrt(41) / 2)
    assert found.replicates == pytest.approx(
        [values[groups != g].mean() / 2 for g in range(20)], rel=1e-12
    )
    # For independent values both errors estimate the same deviation.
    spread = jackknife(found.replicates, found.value, np.bincount(groups)).se
    assert spread == pytest.approx(found.se, rel=0.5)
    share = share_estimate(values > 0, groups)
    k = int((values > 0).sum())
    assert (share.low, share.high) == wilson(k, 41)
    assert share.value == k / 41
    assert share.se == pytest.approx(np.sqrt(k * (41 - k) / 41**3))
    assert mean_estimate(np.array([3.0]), np.array([0])) == Estimate(3.0)


def test_paired_difference_of_correlated_sets():
    rng = np.random.default_rng(0)
    common = rng.normal(size=400)
    groups = jackknife_groups(np.zeros(400, int))
    a = mean_estimate(common + 0.1 * rng.normal(size=400) + 0.05, groups)
    b = mean_estimate(common + 0.1 * rng.normal(size=400), groups)
    found = paired_difference(a, b)
    assert found.value == a.value - b.value
    # The sd of the difference is 0.1 sqrt 2; 20 groups have an error of 16%, 3 times it is allowed.
    assert found.se == pytest.approx(0.1 * np.sqrt(2 / 400), rel=0.5)
    assert found.se < np.hypot(a.se, b.se) / 5
    assert paired_difference(a, a).se == 0.0
    assert paired_difference(found, found).value == 0.0


def test_seed_blocks_have_the_student_t_interval():
    values = [1.0, 2.0, 4.0]
    found = seeds_se(values)
    se = np.std(values, ddof=1) / np.sqrt(3)
    assert (found.value, found.se) == pytest.approx((7 / 3, se))
    assert (found.low, found.high) == pytest.approx(t.interval(0.95, 2, 7 / 3, se))
    assert found.high - found.value == pytest.approx(4.302653 * se, rel=1e-6)
    assert found.se_method == "Student t, 3 seed blocks"


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 replicates"):
        jackknife([1.0], 1.0)
    with pytest.raises(ValueError, match="finite"):
        jackknife([1.0, np.nan], 1.0)
    with pytest.raises(ValueError, match="as many group sizes"):
        jackknife([1.0, 2.0], 1.0, [1, 2, 3])
    with pytest.raises(ValueError, match="groups"):
        jackknife_groups(np.zeros(0, int))
    with pytest.raises(ValueError, match="no interval for 3 of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="got 0 and 2"):
        paired_difference(Estimate(1.0), Estimate(1.0, replicates=(1.0, 2.0)))
    with pytest.raises(ValueError, match="at least 2 finite values"):
        seeds_se([1.0])
    with pytest.raises(ValueError, match="do not match"):
        mean_estimate(np.zeros(3), np.zeros(2, int))
