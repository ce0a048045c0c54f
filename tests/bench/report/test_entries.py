from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from bench.report.numbers.entries import Entry, average, contrast, first, holm, two_sided
from bench.report.numbers.frame import prepare
from bench.report.numbers.pareto import hypervolume, hypervolumes, precision_pairs
from metrics.base import Estimate
from metrics.errors import paired_difference
from tests.bench.report.factory import row, value
from tests.bench.report.rules_factory import sweep


def test_hypervolume_equals_count_on_a_grid():
    rng = np.random.default_rng(3)
    at = (np.arange(400) + 0.5) / 400
    for count in (1, 2, 13):
        points = rng.uniform(0.05, 0.95, size=(count, 2))
        covered = np.zeros((400, 400), bool)
        for x, y in points:
            covered |= (at[:, None] <= x) & (at[None, :] <= y)
        # Every corner may be off by a cell along both of its edges.
        counted = float(covered.mean())
        assert hypervolume([(x, y) for x, y in points]) == pytest.approx(counted, abs=2 * 1.0 / 400)


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.5, 0.4)], 0.2),
        ([(0.5, 0.4), (0.5, 0.4), (0.3, 0.2)], 0.2),
        ([(1.0, 0.5), (0.5, 1.0)], 0.75),
        ([(0.5, 0.2), (0.5, 0.6)], 0.3),
        ([(0.5, 0.0), (0.0, 1.0), (-1.0, 2.0)], 0.0),
    ],
)
def test_hypervolume_of_known_sets(points, area):
    assert hypervolume(points) == pytest.approx(area)
    assert hypervolume(points[::-1]) == pytest.approx(area)


def test_hypervolumes_have_an_error_that_adds_both_sides():
    data = prepare(sweep("digits", rules=("apg",), scales=(1.0, 3.0, 5.0), methods=("edm",)))
    ((precision, recall),) = precision_pairs(data, "digits")
    found = {e.series.rule: e for e in hypervolumes(data, precision, recall)}
    assert set(found) == {"", "apg"}
    entry = found["apg"]
    cells = [[c.found[0][1] for c in side] for side in entry.sides]
    assert entry.estimate.value == hypervolume(
        [(p.value, r.value) for p, r in zip(*cells, strict=True)]
    )
    variance = 0.0
    for side in (0, 1):
        left = []
        for k in range(20):
            x, y = ([v.replicates[k] if i == side else v.value for v in cells[i]] for i in (0, 1))
            left.append(hypervolume(list(zip(x, y, strict=True))))
        variance += 19 / 20 * np.sum((np.array(left) - np.mean(left)) ** 2)
    assert entry.estimate.se == pytest.approx(np.sqrt(variance))


def entry(name, numbers, own=0.5, of=first, replicates=True, seeds=(0,), se=1.0, **changes):
    """A line of digits with one value a scale, of a shared noise and its own."""
    rows = []
    for s in seeds:
        shared = np.random.default_rng(s).normal(size=20)
        rng = np.random.default_rng([s, *name.encode()])
        for i, number in enumerate(numbers):
            left = tuple(number + shared + own * rng.normal(size=20)) if replicates else ()
            shift = 0.1 * s
            measured = value("fd", number + shift, se=se, se_method="J", replicates=left)
            rows.append(row("digits", name, float(i + 1), measured, seed=s, **changes))
    data = prepare(rows)
    (series,) = data.series("digits")
    cells = tuple(data.cell(data.columns[0], series, g) for g in data.guidances("digits"))
    return Entry(series, (cells,), of)


def test_contrast_of_single_values_is_the_paired_difference():
    a, b = entry("edm", [5.0]), entry("igct", [4.0])
    found = contrast(a, b)
    sides = [e.sides[0][0].found[0][1] for e in (a, b)]
    known = paired_difference(*(Estimate(v.value, replicates=v.replicates) for v in sides))
    assert (found.value, found.se) == pytest.approx((known.value, known.se))
    assert found.paired
    assert found.p == pytest.approx(2 * stats.t.sf(abs(known.value / known.se), 19))


def test_error_of_a_mean_is_the_jackknife_of_means():
    found = entry("edm", [1.0, 2.0, 6.0], of=average)
    replicates = np.array([c.found[0][1].replicates for c in found.sides[0]]).mean(axis=0)
    assert found.estimate.value == pytest.approx(3.0)
    se = np.sqrt(19 / 20 * np.sum((replicates - replicates.mean()) ** 2))
    assert found.estimate.se == pytest.approx(se)


def test_seeds_are_blocks_of_the_mean():
    found = entry("edm", [1.0, 3.0], of=average, seeds=(0, 1, 2))
    assert found.estimate.value == pytest.approx(2.1)
    assert found.estimate.se == pytest.approx(0.1 / np.sqrt(3))
    assert found.seeds == {0, 1, 2}


def test_without_replicates_values_are_drawn_as_if_independent():
    found = entry("edm", [1.0, 3.0], of=average, replicates=False, se=0.3)
    assert found.estimate.se == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    assert found.estimate.se_method == "parametric resampling"
    again = entry("edm", [1.0, 3.0], of=average, replicates=False, se=0.3)
    assert again.estimate.se == found.estimate.se
    other = entry("igct", [2.0, 2.0], of=average, replicates=False, se=0.4)
    both = contrast(found, other)
    assert not both.paired
    assert both.se == pytest.approx(np.hypot(found.estimate.se, other.estimate.se))


def test_without_any_error_nothing_is_compared():
    bare = entry("edm", [1.0], replicates=False, se=None)
    assert contrast(bare, entry("igct", [9.0], replicates=False, se=None)) is None
    assert bare.estimate.se is None
    assert bare.p is None


def test_only_common_seeds_are_paired():
    a, b = entry("edm", [5.0], seeds=(0, 1)), entry("igct", [4.0], seeds=(1, 2))
    assert contrast(a, b).value == pytest.approx(1.0)
    apart = contrast(entry("edm", [5.0], seeds=(0,)), entry("igct", [4.0], seeds=(3,)))
    assert not apart.paired


def test_certain_differences_need_no_division():
    assert two_sided(0.0, 0.0, 19) == 1.0
    assert two_sided(0.1, 0.0, 19) == 0.0
    assert two_sided(1.959963984540054, 1.0, None) == pytest.approx(0.05)


def test_holm_is_the_step_down_procedure():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ps = rng.uniform(0, 0.2, size=7) ** 2
        adjusted = holm(list(ps))
        for level in (0.01, 0.05, 0.1):
            # Holm as published: from the smallest on, stop at the first that is not rejected.
            rejected = set()
            for step, i in enumerate(np.argsort(ps)):
                if ps[i] > level / (len(ps) - step):
                    break
                rejected.add(int(i))
            assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
        ordered = [adjusted[i] for i in np.argsort(ps)]
        assert all(a <= b for a, b in pairwise(ordered))
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.001, 0.01], of=10) == pytest.approx([0.01, 0.09])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
