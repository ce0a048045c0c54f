import contextlib
import io
import math

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_prc import prc_features_to_metric

from metrics.errors import jackknife, jackknife_groups
from metrics.neighbours import NeighbourScores, neighbourhoods, squared_radii
from metrics.registry import METRICS

from .helpers import vectors


def neighbour_scores(*args, **options):
    return neighbourhoods(*args, **options).scores


def gaussian(n, m, dim, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(n, dim)), 1.1 * rng.normal(size=(m, dim)) + 0.1
    return (real + offset).astype(np.float32), (fake + offset).astype(np.float32)


def lattice(n, m, dim, seed=0):
    # With small whole numbers every tool has exact squared distances, and ties are common.
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
@pytest.mark.parametrize("options", [{}, {"block": (64, 160)}])
@pytest.mark.parametrize("name", SETS)
def test_equal_to_prdc_and_torch_fidelity(name, options, k):
    real, fake = SETS[name]
    open_balls = neighbour_scores(real, fake, k, False, **options)
    # Counts are equal; the tools divide them in different orders.
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


def test_memorised_set():
    real, _ = gaussian(300, 10, 20)
    closed = neighbour_scores(real, real.copy(), 3, True)
    # Every ball holds its centre and its three neighbours.
    assert closed == (1.0, 1.0, pytest.approx(4 / 3), 1.0)
    assert neighbour_scores(real, real.copy(), 3, False).density == pytest.approx(1.0)


def test_collapsed_and_distant_sets():
    real, _ = gaussian(300, 10, 20)
    one = np.repeat(real[:1], 50, axis=0)
    collapsed = neighbour_scores(real, one)
    assert collapsed.precision == 1.0
    # Balls of radius 0 hold only the copied sample.
    assert collapsed.recall == 1 / 300
    assert neighbour_scores(real, real + 1e4) == (0, 0, 0, 0)


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 3), (120, 300, 5), (250, 100, 1)])
def test_expectations_for_equal_distributions(n, m, k):
    # Among the n - 1 other real and m generated points around a real one, all orders by distance
    # are equally likely. A generated one is within the k-th real one with probability k / n, so
    # the density is 1; none is if the k nearest of all n - 1 + m are real.
    missed = math.comb(n - 1, k) / math.comb(n - 1 + m, k)
    rng = np.random.default_rng(0)
    draws = [
        neighbour_scores(*(rng.normal(size=(s, 8)).astype(np.float32) for s in (n, m)), k)
        for _ in range(40)
    ]
    for found, expected in (("density", 1.0), ("coverage", 1 - missed)):
        values = np.array([getattr(scores, found) for scores in draws])
        error = values.std(ddof=1) / np.sqrt(len(draws))
        assert values.mean() == pytest.approx(expected, abs=4 * error)
        assert error < 0.02


def test_order_does_not_matter():
    real, fake = copies()
    rng = np.random.default_rng(1)
    shuffled = neighbour_scores(rng.permutation(real), rng.permutation(fake))
    assert shuffled == neighbour_scores(real, fake)


@pytest.mark.parametrize(
    ("tail", "k", "closed"), [("k3", 3, True), ("k5_strict", 5, False)], ids=["k3", "k5_strict"]
)
def test_metrics_return_the_scores(tail, k, closed):
    real, fake = copies(100, 10)
    sets = {"real": vectors(real), "fake": vectors(fake)}
    metrics = [METRICS[f"{name}_{tail}"] for name in NeighbourScores._fields]
    values = [metric().compute(**sets, extractor="identity").value for metric in metrics]
    assert values == pytest.approx(list(neighbour_scores(real, fake, k, closed)), abs=1e-15)
    assert all(metric.direction == "higher" for metric in metrics)
    assert {metric.minimum_n for metric in metrics} == {k + 1}
    assert {metric.default for metric in metrics} == {closed}


def test_variants_have_labels_and_documentation():
    assert METRICS["precision_k3"].label == "Precision (k=3)"
    assert METRICS["coverage_k5_strict"].label == "Coverage (k=5, strict)"
    assert METRICS["recall_k5_strict"].__doc__.startswith("Share of real samples")


def test_errors_and_replicates():
    real, fake = gaussian(230, 150, 8)
    labels = {"real": np.arange(230) % 7, "fake": np.zeros(150, np.int64)}
    sets = {"real": vectors(real, labels["real"]), "fake": vectors(fake, labels["fake"])}
    groups = {side: jackknife_groups(labels[side]) for side in labels}
    found = {
        name: METRICS[f"{name}_k3"]().compute(**sets, extractor="identity")
        for name in NeighbourScores._fields
    }
    radii = squared_radii(real, 3)
    # Without a group of generated samples; the real balls are unchanged.
    for g in range(20):
        left = neighbour_scores(real, fake[groups["fake"] != g], real_radii=radii)
        assert found["precision"].replicates[g] == pytest.approx(left.precision, abs=1e-12)
        assert found["density"].replicates[g] == pytest.approx(left.density, abs=1e-12)
    # Without a group of real samples as trials; the others keep their balls.
    for g in range(20):
        kept = groups["real"] != g
        left = neighbour_scores(real[kept], fake, real_radii=radii[kept])
        assert found["recall"].replicates[g] == pytest.approx(left.recall, abs=1e-12)
        assert found["coverage"].replicates[g] == pytest.approx(left.coverage, abs=1e-12)
    for name, n in (("precision", 150), ("recall", 230), ("coverage", 230)):
        e = found[name]
        assert e.se == pytest.approx(np.sqrt(e.value * (1 - e.value) / n))
        assert 0 <= e.low < e.value < e.high <= 1
    density = found["density"]
    # Groups of 7 or 8 samples.
    assert density.se == pytest.approx(
        jackknife(density.replicates, density.value, np.bincount(groups["fake"])).se
    )
    assert len(density.replicates) == 20


def test_errors_agree_with_repeated_generation():
    # The real samples are fixed. A deviation of 60 generated sets has an error of 9%.
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 8)).astype(np.float32)
    radii = squared_radii(real, 3)
    groups = np.arange(400) % 20
    found = [
        neighbourhoods(real, rng.normal(size=(400, 8)).astype(np.float32), 3, True, radii)
        for _ in range(60)
    ]
    for name in ("precision", "density"):
        estimates = [getattr(f, name)(groups) for f in found]
        true = np.std([e.value for e in estimates], ddof=1)
        claimed = np.sqrt(np.mean([e.se**2 for e in estimates]))
        assert claimed == pytest.approx(true, rel=0.3)


def test_kept_radii_are_used():
    real, fake = gaussian(100, 90, 10)
    radii = squared_radii(real, 3)
    assert not radii.flags.writeable
    assert neighbour_scores(real, fake, real_radii=radii) == neighbour_scores(real, fake)
    assert neighbour_scores(real, fake, real_radii=radii * 0).density == 0
    with pytest.raises(ValueError, match="100 real samples need as many radii"):
        neighbour_scores(real, fake, real_radii=radii[:9])
    for bad in (radii.astype(np.float32), -radii, radii * np.nan):
        with pytest.raises(ValueError, match="not negative"):
            neighbour_scores(real, fake, real_radii=bad)


def test_read_only_arrays_are_remembered_without_warnings(recwarn):
    real, fake = gaussian(100, 90, 10)
    for x in (real, fake):
        x.setflags(write=False)
    assert neighbourhoods(real, fake) is neighbourhoods(real, fake)
    assert squared_radii(real, 3) is squared_radii(real, 3)
    assert not recwarn.list


def test_changed_arrays_are_computed_again():
    real, fake = gaussian(100, 100, 5)
    before = neighbour_scores(real, fake)
    fake += 100
    assert neighbour_scores(real, fake).precision == 0.0 != before.precision


def test_refusals():
    real, fake = gaussian(10, 3, 5)
    with pytest.raises(ValueError, match="more than k samples, got 3"):
        neighbour_scores(real, fake)
    real[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        neighbour_scores(real, real)
    with pytest.raises(ValueError, match="do not compare"):
        neighbour_scores(real, real[:, :4])
