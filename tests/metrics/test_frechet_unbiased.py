import numpy as np
import pytest

from metrics.base import SampleSet
from metrics.errors import paired_difference
from metrics.frechet import FrechetDistance
from metrics.frechet_unbiased import (
    FrechetCorrected,
    FrechetInfinity,
    frechet_corrected,
    frechet_infinity,
)

from .helpers import vectors


def test_bias_of_equal_gaussians_is_removed():
    # N(0, I_8), n1 = 300, n2 = 500: the plug-in is at (1/300 + 1/500) (8 + 8 * 9 / 4) = 0.1387.
    rng = np.random.default_rng(0)
    plug_in, corrected, errors = [], [], []
    for _ in range(60):
        sets = {
            "real": vectors(rng.normal(size=(300, 8))),
            "fake": vectors(rng.normal(size=(500, 8))),
        }
        plug_in.append(FrechetDistance().compute(**sets, extractor="identity").value)
        found = FrechetCorrected().compute(**sets, extractor="identity")
        corrected.append(found.value)
        errors.append(found.se)
    # 60 draws leave an error of 0.003 on both means.
    assert np.mean(plug_in) == pytest.approx(0.1387, abs=0.012)
    assert np.mean(corrected) == pytest.approx(0.0, abs=0.012)
    assert np.std(corrected) < 1.2 * np.std(plug_in)
    # For equal distributions the jackknife error is too large by about root two, never too small.
    assert np.std(corrected) < np.mean(errors) < 2 * np.std(corrected)


def test_corrected_distance_is_unbiased_for_known_gaussians():
    rng = np.random.default_rng(1)
    step, scale, dim = 0.4, 1.5, 5
    truth = dim * (step**2 + (scale - 1) ** 2)
    found = [
        frechet_corrected(
            vectors(rng.normal(size=(300, dim))),
            vectors(scale * rng.normal(size=(300, dim)) + step),
            "identity",
        )
        for _ in range(60)
    ]
    values = [f.value for f in found]
    spread = np.std(values)
    assert np.mean(values) == pytest.approx(truth, abs=4 * spread / np.sqrt(60))
    # Both sets vary: the error counts both. A deviation of 60 draws has an error of 9%.
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.25)


def test_replicates_give_smaller_errors_of_differences():
    rng = np.random.default_rng(2)
    real = vectors(rng.normal(size=(400, 6)))
    noise = rng.normal(size=(300, 6))
    a = frechet_corrected(real, vectors(noise + 0.3), "identity")
    b = frechet_corrected(real, vectors(noise * 1.02 + 0.3), "identity")
    assert np.mean(a.replicates) == pytest.approx(a.value)
    assert paired_difference(a, b).se < np.hypot(a.se, b.se) / 4
    # The error of each value also counts the reference set, which both share.
    assert (
        a.se
        > FrechetDistance().compute(real=real, fake=vectors(noise + 0.3), extractor="identity").se
    )


def test_infinity_removes_the_bias_of_the_generated_side():
    rng = np.random.default_rng(0)
    real = vectors(rng.normal(size=(20_000, 8)))
    found, plug_in = [], []
    for _ in range(40):
        fake = vectors(rng.normal(size=(400, 8)))
        plug_in.append(FrechetDistance().compute(real=real, fake=fake, extractor="identity").value)
        found.append(FrechetInfinity().compute(real=real, fake=fake, extractor="identity").value)
    # The bias of the real side, 26 / 20000 = 0.0013, remains.
    assert np.mean(plug_in) == pytest.approx(26 * (1 / 400 + 1 / 20_000), rel=0.1)
    assert np.mean(found) == pytest.approx(0.0013, abs=4 * np.std(found) / np.sqrt(40))
    assert abs(np.mean(found)) < np.mean(plug_in) / 5


def test_balanced_classes_stay_balanced_in_subsets():
    # Two distant classes, half each: unbalanced subsets would scatter by 25 / size.
    labels = np.arange(400) % 2
    rng = np.random.default_rng(0)

    def far_apart(n):
        return (10.0 * (np.arange(n) % 2) + rng.normal(size=n))[:, None]

    real = vectors(far_apart(4000))
    values = [
        frechet_infinity(real, vectors(far_apart(400), labels), "identity") for _ in range(30)
    ]
    # One dimension of variance 1 within classes: the mean's share is (1/400 + 1/4000).
    assert np.mean(np.abs(values)) < 4 * (1 / 400 + 1 / 4000)


def test_infinity_depends_only_on_its_seed():
    rng = np.random.default_rng(0)
    sets = [vectors(rng.normal(size=(60, 4))) for _ in range(2)]
    assert frechet_infinity(*sets, "identity") == frechet_infinity(*sets, "identity")
    other = frechet_infinity(*sets, "identity", seed=1)
    assert other != frechet_infinity(*sets, "identity")


def test_refusals():
    full = vectors(np.random.default_rng(0).normal(size=(30, 4)))
    streamed = SampleSet(full.n, full.labels, moments=full.moments)
    with pytest.raises(ValueError, match="no features of extractor 'identity'"):
        frechet_corrected(streamed, full, "identity")
    with pytest.raises(ValueError, match="3 samples per set, got 30 real, 2 generated"):
        frechet_corrected(full, vectors(np.eye(4)[:2]), "identity")
    with pytest.raises(ValueError, match="20 samples"):
        frechet_infinity(full, vectors(np.eye(4)), "identity")
