import numpy as np
import pytest

from metrics.frechet import FrechetDistance, frechet_distance
from metrics.frechet_classes import ClassFrechet
from metrics.moments import moments_of

from .helpers import vectors


def classes(n, dim, seed, order=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = 10.0 * np.eye(3, dim)[list(order)]
    return rng.normal(size=(n, dim)) + centres[labels], labels


def compute(metric, real, fake):
    return metric().compute(real=vectors(*real), fake=vectors(*fake), extractor="identity")


@pytest.mark.parametrize("dim", [5, 60])
def test_value_is_the_mean_distance_of_the_classes(dim):
    # Twenty samples per class: more or fewer than dimensions.
    real, fake = classes(90, dim, 1), classes(60, dim, 2)
    expected = []
    for label in range(3):
        a, b = (x[labels == label].astype(np.float32) for x, labels in (real, fake))
        expected.append(
            frechet_distance(moments_of(a), moments_of(b), real_features=a, fake_features=b)
        )
    found = compute(ClassFrechet, real, fake)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-10)
    assert found.se > 0
    assert len(found.replicates) == 20


def test_exchanged_classes_are_detected_unlike_by_fd():
    real, right, wrong = classes(600, 4, 1), classes(600, 4, 2), classes(600, 4, 2, (1, 2, 0))
    assert compute(FrechetDistance, real, wrong).value < 0.5
    assert compute(ClassFrechet, real, right).value < 0.5
    # Every class is at the place of another one, 10 root 2 away.
    assert compute(ClassFrechet, real, wrong).value == pytest.approx(200, rel=0.05)


def test_only_generated_classes_count():
    x, labels = classes(120, 4, 1)
    part = labels != 2
    found = compute(ClassFrechet, (x, labels), (x[part], labels[part]))
    assert found.value == pytest.approx(0.0, abs=1e-7)


def test_error_is_the_sampling_deviation():
    real = classes(900, 4, 0)
    found = [
        compute(ClassFrechet, real, (x + 0.5, y))
        for x, y in (classes(240, 4, seed) for seed in range(1, 61))
    ]
    # A deviation of 60 draws has an error of 9%; the errors have 20 groups each.
    spread = np.std([f.value for f in found])
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.25)


def test_refuses_classes_that_are_too_small():
    real, fake = classes(90, 4, 1), classes(9, 4, 2)
    with pytest.raises(ValueError, match=r"class 0 has 3 generated samples; .* needs at least 4"):
        compute(ClassFrechet, real, fake)
    with pytest.raises(ValueError, match="class 0 has 3 real samples"):
        compute(ClassFrechet, fake, real)
