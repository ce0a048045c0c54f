import numpy as np
import pytest
from scipy.spatial.distance import cdist

from metrics.errors import jackknife_groups
from metrics.memorisation import (
    Authenticity,
    NearestReferenceRatio,
    authenticity,
    nearest,
    nearest_ratio,
)

from .helpers import vectors


def groups(n):
    return jackknife_groups(np.zeros(n, int))


def normal(n, dim, seed):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 5, 300])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_nearest_agrees_with_all_distances(dim, offset):
    x, y = normal(60, dim, 1) + np.float32(offset), normal(70, dim, 2) + np.float32(offset)
    all_pairs = cdist(x.astype(np.float64), y.astype(np.float64))
    found = nearest(x, y)
    np.testing.assert_allclose(found.distance, all_pairs.min(1), rtol=1e-6)
    np.testing.assert_array_equal(nearest(x, y, 7).distance, found.distance)
    own = cdist(y.astype(np.float64), y.astype(np.float64))
    np.fill_diagonal(own, np.inf)
    np.testing.assert_allclose(nearest(y, y).distance, own.min(1), rtol=1e-6)
    assert (nearest(y, y).place != np.arange(70)).all()


def test_few_samples():
    x = np.array([[0.0], [1.0]], np.float32)
    np.testing.assert_array_equal(nearest(x, x).place, [1, 0])
    np.testing.assert_array_equal(nearest(x, x[:1].copy()).distance, [0, 1])
    one = x[:1]
    with pytest.raises(ValueError, match="no nearest"):
        nearest(one, one)


def test_copies_are_found_and_fresh_samples_are_not():
    given, fresh = normal(500, 10, 1), normal(500, 10, 2)
    copies = given[::-1].copy()
    assert nearest_ratio(given, copies, groups(500)).value == 0.0
    assert authenticity(given, copies, groups(500)).value == 0.0
    found = nearest_ratio(given, fresh, groups(500))
    assert found.value == pytest.approx(1.0, abs=4 * found.se)
    assert authenticity(given, fresh, groups(500)).value > 0.4
    # Copies with a little noise are closer than neighbours.
    near = copies + np.float32(0.01) * normal(500, 10, 3)
    assert nearest_ratio(given, near, groups(500)).value < 0.03
    assert authenticity(given, near, groups(500)).value == 0.0


def test_one_third_of_copies_lowers_authenticity_by_one_third():
    given, fresh = normal(600, 6, 1), normal(600, 6, 2)
    mixed = fresh.copy()
    mixed[::3] = given[::3]
    kept = np.delete(fresh, np.s_[::3], axis=0)
    alone = authenticity(given, kept, groups(400)).value
    assert authenticity(given, mixed, groups(600)).value == pytest.approx(alone * 2 / 3)


@pytest.mark.parametrize(("dim", "mutual"), [(1, 2 / 3), (2, 0.6215)])
def test_fresh_samples_are_authentic_unless_neighbours_are_mutual(dim, mutual):
    rng = np.random.default_rng(0)
    given, fresh = (rng.random((6000, dim)).astype(np.float32) for _ in range(2))
    found = authenticity(given, fresh, groups(6000))
    # Samples share neighbours, so 1.5 times the binomial error; few are at the border.
    assert found.value == pytest.approx(1 - mutual, abs=4 * 1.5 * found.se)


def test_copies_of_repeated_samples_are_copies():
    given = np.repeat(normal(50, 4, 0), 2, axis=0)
    assert authenticity(given, given[:20].copy(), groups(20)).value == 0.0
    with pytest.raises(ValueError, match="their median distance is 0"):
        nearest_ratio(given, given, groups(100))


def test_error_of_the_median_is_its_sampling_deviation():
    given = normal(1000, 4, 0)
    given.setflags(write=False)
    found = [nearest_ratio(given, normal(400, 4, seed), groups(400)) for seed in range(1, 81)]
    # A deviation of 80 draws has an error of 8%; the jackknife is less exact for medians.
    spread = np.std([f.value for f in found])
    assert np.sqrt(np.mean([f.se**2 for f in found])) == pytest.approx(spread, rel=0.35)


def test_metrics():
    real, fake = normal(90, 5, 1), normal(80, 5, 2)
    sets = {"real": vectors(real), "fake": vectors(fake), "extractor": "identity"}
    ratio, share = NearestReferenceRatio().compute(**sets), Authenticity().compute(**sets)
    assert ratio == nearest_ratio(real, fake, groups(80))
    assert share == authenticity(real, fake, groups(80))
    assert len(ratio.replicates) == len(share.replicates) == 20
    assert share.low < share.value < share.high
    assert (NearestReferenceRatio.default, Authenticity.default) == (False, False)


def test_overflow_is_refused():
    x = normal(5, 2, 0)
    far = np.array([[1e30, 0], [0, 0]], np.float32)
    with pytest.raises(ValueError, match="overflow"):
        nearest(x, far)
