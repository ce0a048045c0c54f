import numpy as np
import pytest
import torch

from metrics.accumulate import Accumulator, NonFiniteFeatures, plan_needs
from metrics.base import ExactMixture
from metrics.extractors.identity import IdentityExtractor
from metrics.registry import METRICS

from .helpers import Stub, uint8_images

ALL = ("features", "logits", "moments", "pixels")


def accumulated(images, labels, sizes, needs=ALL):
    stub = Stub()
    accumulator = Accumulator({"stub": stub}, needs)
    start = 0
    for size in sizes:
        accumulator.update(images[start : start + size], labels[start : start + size])
        start += size
    return accumulator.finish(), stub


def test_every_batch_passes_each_extractor_once():
    images, labels = uint8_images(20), torch.arange(20) % 3
    samples, stub = accumulated(images, labels, [8, 8, 4])
    assert stub.calls == 3
    assert samples.n == 20
    np.testing.assert_array_equal(samples.labels, labels.numpy())
    direct = Stub()(images)
    np.testing.assert_array_equal(samples.features["stub"], direct.features.numpy())
    np.testing.assert_array_equal(samples.logits["stub"], direct.logits.numpy())
    expected = np.cov(direct.features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(samples.moments["stub"].cov, expected, rtol=1e-10)
    assert samples.features["stub"].dtype == np.float32
    assert samples.labels.dtype == np.int64


def test_split_into_batches_does_not_change_the_result():
    images, labels = uint8_images(30), torch.arange(30)
    whole, _ = accumulated(images, labels, [30])
    parts, _ = accumulated(images, labels, [1, 0, 28, 1])
    np.testing.assert_array_equal(whole.features["stub"], parts.features["stub"])
    np.testing.assert_allclose(whole.moments["stub"].cov, parts.moments["stub"].cov, rtol=1e-10)
    np.testing.assert_allclose(whole.moments["stub"].mean, parts.moments["stub"].mean, rtol=1e-10)
    for name in ("at_ends", "contrast", "chroma"):
        one, two = getattr(whole.pixels, name), getattr(parts.pixels, name)
        np.testing.assert_array_equal(one, two)
        assert not one.flags.writeable


def test_keeps_only_what_is_needed():
    images, labels = uint8_images(4), torch.zeros(4, dtype=torch.long)
    samples, _ = accumulated(images, labels, [4], needs=["moments"])
    assert (samples.features, samples.logits, samples.pixels) == ({}, {}, None)
    samples, _ = accumulated(images, labels, [4], needs=[])
    assert (samples.n, samples.moments) == (4, {})


def test_plan_needs():
    chosen = [METRICS["fd"], METRICS["saturation"]()]
    assert plan_needs(chosen) == {"features", "moments", "pixels"}
    assert plan_needs(METRICS.values()) >= set(ALL)
    assert plan_needs([]) == frozenset()


def test_vectors_are_copied():
    exact = ExactMixture((np.zeros((1, 2)),), 1.0)
    accumulator = Accumulator({"identity": IdentityExtractor(2)}, ["features"])
    x = torch.ones(3, 2)
    accumulator.update(x, np.array([0, 0, 0]))
    x += 1
    samples = accumulator.finish(exact)
    assert samples.exact is exact
    np.testing.assert_array_equal(samples.features["identity"], np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        samples.features["identity"][0] = 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_non_finite_features_are_refused(bad):
    accumulator = Accumulator({"identity": IdentityExtractor(2)}, ["moments"])
    accumulator.update(torch.ones(3, 2, dtype=torch.float64), np.zeros(3, int))
    x = torch.ones(4, 2, dtype=torch.float64)
    x[2, 1] = bad
    message = r"features of extractor 'identity' hold NaN or infinity for 1 of 4.*sample 5"
    with pytest.raises(NonFiniteFeatures, match=message):
        accumulator.update(x, np.zeros(4, int))


def test_refusals():
    images = uint8_images(3)
    with pytest.raises(ValueError, match=r"unknown needs \['moment'\]; known are features"):
        Accumulator({}, ["moment"])
    accumulator = Accumulator({"stub": Stub()}, ALL)
    with pytest.raises(ValueError, match="no samples"):
        accumulator.finish()
    with pytest.raises(ValueError, match="3 samples need as many integer labels"):
        accumulator.update(images, np.zeros(2, int))
    with pytest.raises(ValueError, match="integer labels, got float64"):
        accumulator.update(images, np.zeros(3))
    accumulator.update(images, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) after samples of \(1, 8, 8\)"):
        accumulator.update(uint8_images(3, (1, 4, 4)), np.zeros(3, int))
    with pytest.raises(ValueError, match="uint8 images"):
        Accumulator({}, ["pixels"]).update(torch.zeros(2, 3), np.zeros(2, int))
    wrong = Stub()
    wrong.dim = 5
    with pytest.raises(ValueError, match=r"returned features \(3, 2\) for 3 samples, not \(3, 5\)"):
        Accumulator({"stub": wrong}, []).update(images, np.zeros(3, int))
