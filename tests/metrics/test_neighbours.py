import contextlib
import io

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_prc import prc_features_to_metric

from metrics.neighbours import NeighbourScores, neighbour_scores, squared_radii
from metrics.registry import METRICS

from .helpers import vectors

NAMES = ("precision_k3", "recall_k3", "density_k3", "coverage_k3")
SCREENED = {"direct_products": 0}


def gaussian(n, m, dim, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, dim)), 1.1 * rng.normal(size=(m, dim)) + 0.1
    return (real + offset).astype(np.float32), (fake + offset).astype(np.float32)


def lattice(n, m, dim, seed=0):
    # Small whole numbers: every squared distance is exact in every tool, and ties are common.
    rng = np.random.default_rng(seed)
    real = rng.integers(-2, 3, size=(n, dim))
    fake = rng.integers(-2, 3, size=(m, dim))
    fake[: m // 2] = real[: m // 2]
    return real.astype(np.float32), fake.astype(np.float32)


def by_prdc(real, fake, k=3):
    with contextlib.redirect_stdout(io.StringIO()):
        scores = compute_prdc(real_features=real, fake_features=fake, nearest_k=k)
    return NeighbourScores(**{name: float(value) for name, value in scores.items()})


def by_torch_fidelity(real, fake, k=3):
    scores = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=k, verbose=False
    )
    return scores["precision"], scores["recall"]


SETS = {
    "64-d": gaussian(500, 400, 64),
    "2-d": gaussian(300, 350, 2),
    "300-d": gaussian(300, 200, 300),
    "ties": lattice(400, 300, 5),
    "many ties": lattice(300, 300, 12),
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("options", [{}, SCREENED, {**SCREENED, "block_pairs": 1000}])
@pytest.mark.parametrize("name", SETS)
def test_equal_to_prdc_and_torch_fidelity(name, options, k):
    real, fake = SETS[name]
    open_balls = neighbour_scores(real, fake, k, False, **options)
    # Equal counts; the tools divide them in different orders.
    assert open_balls == pytest.approx(by_prdc(real, fake, k), abs=1e-12)
    closed = neighbour_scores(real, fake, k, **options)
    # torch-fidelity averages in float32.
    expected = by_torch_fidelity(real, fake, k)
    assert (closed.precision, closed.recall) == pytest.approx(expected, abs=1e-7)
    if "ties" in name:
        assert closed.density > open_balls.density


def copies(n=400, dim=32, offset=0.0):
    real, fake = gaussian(n, n, dim, offset=offset)
    fake[::2] = real[::2]
    return real, fake


def brute_force(real, fake, k, closed):
    def squared(a, b):
        return ((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(2)

    compare = np.less_equal if closed else np.less
    radii = [np.sort(squared(x, x), axis=1)[:, k] for x in (real, fake)]
    across = squared(real, fake)
    in_real, in_fake = compare(across, radii[0][:, None]), compare(across, radii[1][None])
    return NeighbourScores(
        in_real.any(0).mean(),
        in_fake.any(1).mean(),
        in_real.sum() / (k * len(fake)),
        in_real.any(1).mean(),
    )


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("options", [{}, SCREENED, {**SCREENED, "block_pairs": 4321}])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_half_memorised_set(closed, options, offset):
    # A copy of a real sample lies exactly on the edge of other real samples' balls, which a
    # rounded distance would decide by chance. An offset makes float32 products err by 1e-2.
    real, fake = copies(offset=offset)
    expected = brute_force(real, fake, 3, closed)
    assert neighbour_scores(real, fake, 3, closed, **options) == pytest.approx(expected, abs=1e-12)


def test_memorised_set():
    real, _ = gaussian(300, 10, 20)
    closed = neighbour_scores(real, real.copy(), 3, True)
    # Every ball holds its centre and its three neighbours.
    assert closed == (1.0, 1.0, pytest.approx(4 / 3), 1.0)
    assert neighbour_scores(real, real.copy(), 3, False).density == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{}, SCREENED])
def test_collapsed_and_distant_sets(options):
    real, _ = gaussian(300, 10, 20)
    one = np.repeat(real[:1], 50, axis=0)
    collapsed = neighbour_scores(real, one, **options)
    assert collapsed.precision == 1.0
    # Balls of radius 0 hold only the copied sample.
    assert collapsed.recall == 1 / 300
    assert neighbour_scores(real, real + 1e4, **options) == (0, 0, 0, 0)


@pytest.mark.parametrize("scale", [1e25, 1e-25])
@pytest.mark.parametrize("options", [{}, SCREENED])
def test_squares_outside_the_range_of_float32(scale, options):
    real, fake = copies(200, 20)
    expected = brute_force(real, fake, 3, True)
    scaled = (x * np.float32(scale) for x in (real, fake))
    assert neighbour_scores(*scaled, **options) == pytest.approx(expected, abs=1e-12)
    assert neighbour_scores(real, fake * np.float32(1e25), **options).density == 0.0


def test_screening_and_direct_evaluation_agree_on_radii():
    real, _ = copies(600, 40, offset=30.0)
    np.testing.assert_array_equal(
        squared_radii(real, 3, 0, 10_000), squared_radii(real, 3, 2**40, 7_000)
    )


def test_equal_distributions():
    # E[density] = 1 for any continuous distribution; the mean of 30 draws has this error.
    rng = np.random.default_rng(0)
    draws = [
        neighbour_scores(*(rng.normal(size=(200, 8)).astype(np.float32) for _ in range(2)))
        for _ in range(30)
    ]
    density = np.array([scores.density for scores in draws])
    assert density.mean() == pytest.approx(1.0, abs=4 * density.std() / np.sqrt(len(draws)))
    # E[coverage] = 1 - prod_{i<k} (n - 1 - i) / (n + m - 1 - i), Naeem et al. (2020), eq. 11.
    n = m = 200
    missed = np.prod([(n - 1 - i) / (n + m - 1 - i) for i in range(3)])
    coverage = np.array([scores.coverage for scores in draws])
    assert coverage.mean() == pytest.approx(
        1 - missed, abs=4 * coverage.std() / np.sqrt(len(draws))
    )


def test_order_does_not_matter():
    real, fake = copies()
    rng = np.random.default_rng(1)
    shuffled = neighbour_scores(rng.permutation(real), rng.permutation(fake))
    assert shuffled == neighbour_scores(real, fake)


def test_metrics_share_the_scores():
    real, fake = gaussian(100, 90, 10)
    sets = {"real": vectors(real), "fake": vectors(fake)}
    values = [METRICS[name]().compute(**sets, extractor="identity") for name in NAMES]
    assert values == list(neighbour_scores(real, fake))
    assert [METRICS[name].label for name in NAMES][:2] == ["Precision (k=3)", "Recall (k=3)"]
    assert all(METRICS[name].direction == "higher" for name in NAMES)


def test_changed_arrays_are_computed_again():
    real, fake = gaussian(100, 100, 5)
    before = neighbour_scores(real, fake)
    fake += 100
    assert neighbour_scores(real, fake).precision == 0.0 != before.precision


def test_refusals():
    real, fake = gaussian(10, 3, 5)
    with pytest.raises(ValueError, match="more than k samples, got 3"):
        neighbour_scores(real, fake)
    with pytest.raises(ValueError, match="do not compare"):
        neighbour_scores(real, real[:, :4])
