import numpy as np
import pytest

from metrics.base import SampleSet, Unsuitable
from metrics.displacement import Displacement, with_twins
from metrics.tilt import at_guidance

RNG = np.random.default_rng(0)
N, D = 60, 5
LABELS = np.arange(N) % 3
X = RNG.normal(size=(N, D)).astype(np.float32)


def sample_set(x):
    return SampleSet(n=N, labels=LABELS, features={"f": x})


def displacement(x, twins):
    found = with_twins(at_guidance(sample_set(x), 4.0), sample_set(twins))
    return Displacement().compute(real=sample_set(X), fake=found, extractor="f")


def test_displacement_is_the_mean_length_of_paired_differences():
    moved = X + RNG.normal(size=(N, D)).astype(np.float32)
    found = displacement(moved, X)
    lengths = np.linalg.norm(moved.astype(float) - X, axis=1)
    assert found.value == pytest.approx(lengths.mean())
    assert found.se == pytest.approx(lengths.std(ddof=1) / np.sqrt(N))
    assert len(found.replicates) == 20


def test_displacement_of_unmoved_samples_is_zero():
    found = displacement(X, X)
    assert (found.value, found.se, set(found.replicates)) == (0.0, 0.0, {0.0})


def test_displacement_depends_on_the_order_of_twins():
    assert displacement(X, X[::-1].copy()).value > 1


def test_samples_without_twins_are_unsuitable():
    with pytest.raises(Unsuitable, match="cells of a sweep only"):
        Displacement().compute(real=sample_set(X), fake=sample_set(X), extractor="f")
