import numpy as np
import pytest

from metrics.moments import MomentAccumulator, moments_of, moments_without


def streamed(x, sizes):
    accumulator = MomentAccumulator(x.shape[1])
    start = 0
    for size in sizes:
        accumulator.update(x[start : start + size])
        start += size
    assert start == len(x)
    return accumulator.finish()


@pytest.mark.parametrize("sizes", [[1000], [1] * 1000, [999, 1], [0, 1, 7, 500, 0, 492]])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_split_and_offset_lose_no_precision(sizes, offset):
    x = np.random.default_rng(0).normal(size=(1000, 7)) * np.arange(1, 8) + offset
    moments = streamed(x, sizes)
    # The reference is computed without the offset. Adding it rounds x by offset * 1e-16.
    exact = x - offset
    assert moments.n == 1000
    np.testing.assert_allclose(moments.mean - offset, exact.mean(0), atol=1e-10 + offset * 1e-15)
    np.testing.assert_allclose(moments.cov, np.cov(exact, rowvar=False), atol=1e-10)


def test_float32_features_are_summed_in_float64():
    x = (np.random.default_rng(0).normal(size=(20_000, 3)) + 1e3).astype(np.float32)
    moments = streamed(x, [128] * 156 + [32])
    np.testing.assert_allclose(
        moments.cov, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12
    )


def test_one_outlier_first():
    x = np.random.default_rng(0).normal(size=(100, 2))
    x[0] = 1e6
    np.testing.assert_allclose(streamed(x, [1, 99]).cov, np.cov(x, rowvar=False), rtol=1e-10)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        moments_of(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(B, 3\), got \(5, 2\)"):
        MomentAccumulator(3).update(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="dimension"):
        MomentAccumulator(0)


def test_result_is_read_only_and_unchanged_by_more_data():
    accumulator = MomentAccumulator(2)
    accumulator.update(np.eye(2))
    before = accumulator.finish()
    kept = before.cov.copy(), before.mean.copy()
    accumulator.update(np.ones((4, 2)))
    np.testing.assert_array_equal(before.cov, kept[0])
    np.testing.assert_array_equal(before.mean, kept[1])
    with pytest.raises(ValueError, match="read-only"):
        before.cov[0, 0] = 1


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("n", "dim"), [(203, 7), (30, 40)])
def test_moments_without_groups_equal_the_direct_result(n, dim, offset):
    x = np.random.default_rng(0).normal(size=(n, dim)) * np.arange(1, dim + 1) + offset
    groups = np.arange(n) % 20
    for group, left in enumerate(moments_without(x, moments_of(x), groups)):
        direct = moments_of(x[groups != group])
        assert left.n == direct.n
        np.testing.assert_allclose(left.mean, direct.mean, rtol=1e-12, atol=1e-12)
        scale = np.abs(direct.cov).max()
        np.testing.assert_allclose(left.cov, direct.cov, atol=1e-12 * scale)
    assert group == 19


def test_leaving_out_an_outlier_loses_no_digits():
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[5] = 1e9
    groups = np.arange(40) % 20
    left = list(moments_without(x, moments_of(x), groups))[5]
    np.testing.assert_allclose(left.cov, np.cov(x[groups != 5], rowvar=False), rtol=1e-10)


def test_moments_without_groups_refuse_wrong_inputs():
    x = np.eye(4)
    with pytest.raises(ValueError, match="do not belong"):
        next(moments_without(x[:3], moments_of(x), np.arange(3)))
    with pytest.raises(ValueError, match="at least 2 samples, 1 remain"):
        next(moments_without(x[:2], moments_of(x[:2]), np.arange(2)))
