import numpy as np
import pytest
import torch

from metrics.base import PixelStats, SampleSet
from metrics.saturation import ContrastRatio, PixelAccumulator, Saturation

from .helpers import uint8_images


def stats(*batches):
    accumulator = PixelAccumulator()
    for batch in batches:
        accumulator.update(batch)
    return accumulator.finish()


def sample_set(images):
    return SampleSet(len(images), np.zeros(len(images), np.int64), pixels=stats(images))


def test_images_made_by_hand():
    half = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    flat = torch.full((1, 1, 2, 2), 128, dtype=torch.uint8)
    near = torch.tensor([1, 254, 1, 254], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert stats(half) == PixelStats(1.0, 0.5)
    assert stats(flat) == PixelStats(0.0, 0.0)
    assert stats(near) == PixelStats(0.0, pytest.approx(126.5 / 255))
    assert stats(torch.cat([half, flat, flat, flat])) == PixelStats(0.25, 0.125)


def test_contrast_is_over_channels_too():
    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255
    assert stats(red).rms_contrast == pytest.approx(np.sqrt(2) / 3)


def test_agrees_with_numpy_and_ignores_the_split():
    images = uint8_images(50, (3, 9, 7))
    values = images.numpy() / 255
    whole = stats(images)
    assert whole.rms_contrast == pytest.approx(values.std(axis=(1, 2, 3)).mean(), rel=1e-12)
    assert whole.at_ends == np.isin(images.numpy(), [0, 255]).mean()
    split = stats(images[:1], images[1:1], images[1:30], images[30:])
    assert split.at_ends == whole.at_ends
    assert split.rms_contrast == pytest.approx(whole.rms_contrast, rel=1e-14)


def test_metrics():
    real = sample_set((uint8_images(20) // 2) + 60)
    fake = sample_set(((uint8_images(20) // 2) + 60) // 3)
    saturated = sample_set(torch.where(uint8_images(20) < 128, 0, 255).byte())
    assert ContrastRatio().compute(real=real, fake=real, extractor="") == 1.0
    # Thirds, rounded down to whole grey levels.
    ratio = ContrastRatio().compute(real=real, fake=fake, extractor="")
    assert ratio == pytest.approx(1 / 3, rel=0.01)
    assert ContrastRatio().compute(real=real, fake=saturated, extractor="") > 3
    assert Saturation().compute(real=real, fake=fake, extractor="") == 0.0
    assert Saturation().compute(real=fake, fake=saturated, extractor="") == 1.0


def test_refusals():
    with pytest.raises(ValueError, match="uint8 images"):
        PixelAccumulator().update(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="no images"):
        PixelAccumulator().finish()
    flat = sample_set(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no contrast"):
        ContrastRatio().compute(real=flat, fake=flat, extractor="")
    empty = SampleSet(0, np.empty(0, np.int64))
    with pytest.raises(ValueError, match="need 'pixels'"):
        Saturation().compute(real=empty, fake=empty, extractor="")
