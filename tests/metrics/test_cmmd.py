import numpy as np
import pytest

from metrics.cmmd import ClipMmd, clip_mmd
from metrics.errors import jackknife, jackknife_groups

from .helpers import Stub, vectors


def groups(n):
    return jackknife_groups(np.zeros(n, int))


def direct(real, fake):
    """The V-statistic over all pairs, with the full kernel."""
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (real, fake))

    def mean(a, b):
        return np.exp(-((a[:, None] - b) ** 2).sum(2) / 200).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def cmmd(real, fake):
    found = clip_mmd(
        real.astype(np.float32), fake.astype(np.float32), groups(len(real)), groups(len(fake))
    )
    assert found.fake_se >= 0
    return found


@pytest.mark.parametrize("sizes", [(30, 30), (25, 41)])
def test_agrees_with_sums_over_pairs(sizes):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(sizes[0], 20)), rng.normal(size=(sizes[1], 20)) + 0.5
    # Float32 unit vectors have errors of 1e-7 in a distance that the kernel divides by 200.
    assert cmmd(real, fake).value == pytest.approx(direct(real, fake), abs=1e-9)


def test_two_directions():
    # All at e1 against all at e2: |x - y|^2 = 2, so 2 - 2 exp(-2 / 200). Lengths do not matter.
    real = np.array([[1.0, 0], [7.0, 0], [2.0, 0]])
    fake = np.array([[0, 3.0], [0, 1.0]])
    expected = 2 - 2 * np.exp(-0.01)
    assert cmmd(real, fake).value == pytest.approx(expected, rel=1e-6)
    found = ClipMmd().compute(real=vectors(real), fake=vectors(fake), extractor="identity")
    assert found.value == pytest.approx(1000 * expected, rel=1e-6)
    assert cmmd(real, real).value == pytest.approx(0.0, abs=1e-12)


def test_error_is_the_sampling_deviation():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(1000, 6)) + 1
    found = [cmmd(real, rng.normal(size=(150, 6)) + np.arange(6) / 3) for _ in range(100)]
    spread = np.std([f.value for f in found])
    # A deviation of 100 draws has an error of 7%.
    assert np.mean([f.fake_se for f in found]) == pytest.approx(spread, rel=0.2)
    assert np.mean([jackknife(f.replicates, f.value).se for f in found]) == pytest.approx(
        spread, rel=0.2
    )


def test_replicates_are_values_without_their_group():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(30, 5)), rng.normal(size=(43, 5)) + 0.5
    expected = [direct(real, fake[groups(43) != g]) for g in range(20)]
    np.testing.assert_allclose(cmmd(real, fake).replicates, expected, atol=1e-9)


def test_other_extractors_than_clip_are_refused():
    stub = Stub()
    reason = ClipMmd().supports(domain="image", extractor=stub, exact=None)
    assert reason == "cmmd is defined for CLIP embeddings, not for those of stub"
    stub.name = "clip-vit-l-14-336px"
    assert ClipMmd().supports(domain="image", extractor=stub, exact=None) is None
    assert "needs an extractor" in ClipMmd().supports(domain="image", extractor=None, exact=None)
    assert not ClipMmd.default


def test_zero_embedding_is_refused():
    with pytest.raises(ValueError, match="no direction"):
        cmmd(np.zeros((3, 2)), np.ones((3, 2)))
