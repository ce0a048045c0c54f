from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.report.numbers.cells import Cell, pair
from metrics.base import Estimate
from metrics.errors import paired_difference
from tests.bench.report.factory import row, value


def cell(*numbers, **changes):
    """Values by (training seed, sampling seed, value)."""
    found = []
    for train, seed, number in numbers:
        v = value("fd", number, **changes)
        found.append((row("digits", "edm", 1.0, v, train_seed=train, seed=seed), v))
    return Cell(tuple(found))


def test_single_value_has_its_own_error():
    found = cell((0, 0, 3.0), se=0.5, se_method="jackknife")
    assert (found.mean, found.estimate.se, found.estimate.se_method) == (3.0, 0.5, "jackknife")
    assert found.band == pytest.approx((3.0 - 1.96 * 0.5, 3.0 + 1.96 * 0.5), abs=1e-4)
    assert cell((0, 0, 3.0), se=0.5, low=2.5, high=4.0).band == (2.5, 4.0)
    assert cell((0, 0, 3.0)).band is None
    assert Cell().band is None


def test_sampling_seeds_are_blocks_with_the_interval_of_student():
    numbers = [1.0, 2.0, 4.0]
    found = cell(*((0, seed, x) for seed, x in enumerate(numbers)), se=0.1)
    assert found.unit == "sampling seeds"
    assert found.estimate.se == pytest.approx(stats.sem(numbers))
    expected = stats.t.interval(0.95, 2, loc=np.mean(numbers), scale=stats.sem(numbers))
    assert found.band == pytest.approx(expected)


def test_training_runs_are_blocks_whose_sampling_seeds_are_averaged():
    # Four values that agree within a run: their error is that of two numbers, not of four.
    found = cell((0, 0, 1.0), (0, 1, 1.2), (1, 0, 3.0), (1, 1, 3.2))
    assert found.unit == "training runs"
    assert found.blocks == pytest.approx((1.1, 3.1))
    assert found.estimate.se == pytest.approx(stats.sem([1.1, 3.1]))
    assert found.band == pytest.approx((1.1, 3.1))


def test_minimum_is_over_the_first_seeds_of_one_checkpoint():
    found = cell((0, 0, 5.0), (0, 1, 4.0), (0, 2, 6.0), (0, 3, 1.0))
    assert found.seeds == 4
    assert found.minimum(3) == 4.0
    assert found.minimum(5) is None
    assert cell((0, 0, 1.0), (1, 0, 2.0), (2, 0, 3.0)).seeds == 1
    two = cell(*((run, seed, 10 * run + seed) for run in (0, 1) for seed in (0, 1, 2)))
    assert two.minimum(3) == 5.0


def test_pairs_are_over_common_seeds_with_replicates_averaged():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(3, 20)), rng.normal(size=(3, 20))

    def side(replicates, seeds):
        parts = [cell((0, s, float(s)), replicates=tuple(replicates[s])) for s in seeds]
        return Cell(tuple(part.found[0] for part in parts))

    a, b, count = pair(side(ours, (0, 1)), side(theirs + 2, (1, 2)))
    assert count == 1
    assert a.value == b.value == 1.0
    assert a.replicates == tuple(ours[1])
    a, b, count = pair(side(ours, (0, 1, 2)), side(theirs, (0, 1, 2)))
    assert count == 3
    mean = Estimate(0.0, replicates=tuple((ours - theirs).mean(axis=0)))
    alone = paired_difference(mean, Estimate(0.0, replicates=(0.0,) * 20))
    assert paired_difference(a, b).se == pytest.approx(alone.se)
    assert pair(side(ours, (0,)), side(theirs, (1,))) is None
    assert pair(cell((0, 0, 1.0)), cell((0, 0, 2.0))) is None


def test_interval_of_shares_over_seeds_is_within_0_and_1():
    numbers = [(0, 0, 0.05), (0, 1, 0.5), (0, 2, 0.98)]
    free = cell(*numbers, se=0.01, se_method="jackknife, 20 groups").band
    assert free[0] < 0
    assert free[1] > 1
    share = cell(*numbers, se=0.01, se_method="binomial, Wilson interval")
    assert share.band == (0.0, 1.0)
    assert share.estimate.se == cell(*numbers).estimate.se
    inner = [(0, 0, 0.5), (0, 1, 0.51), (0, 2, 0.52)]
    shares = cell(*inner, se=0.01, se_method="binomial, Wilson interval")
    assert shares.band == cell(*inner).band
