import colorsys
import dataclasses

import numpy as np
import pytest
import torch

from metrics.base import SampleSet
from metrics.errors import jackknife_groups
from metrics.saturation import ChromaRatio, ContrastRatio, PixelAccumulator, Saturation

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
    found = stats(torch.cat([half, flat]), near)
    np.testing.assert_array_equal(found.at_ends, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(found.contrast, [0.5, 0.0, 126.5 / 255], rtol=1e-14)
    np.testing.assert_array_equal(found.chroma, [0.0, 0.0, 0.0])


def test_contrast_is_over_channels_too():
    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255
    assert stats(red).contrast[0] == pytest.approx(np.sqrt(2) / 3)
    assert stats(red).chroma[0] == 1.0


def test_agrees_with_numpy_and_ignores_the_split():
    images = uint8_images(50, (3, 9, 7))
    values = images.numpy() / 255
    whole = stats(images)
    np.testing.assert_allclose(whole.contrast, values.std(axis=(1, 2, 3)), rtol=1e-12)
    ends = np.isin(images.numpy(), [0, 255]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(whole.at_ends, ends, rtol=1e-14)
    split = stats(images[:1], images[1:1], images[1:30], images[30:])
    for name in ("at_ends", "contrast", "chroma"):
        np.testing.assert_array_equal(getattr(split, name), getattr(whole, name))


def test_chroma_is_that_of_hsv():
    images = uint8_images(3, (3, 4, 5))
    pixels = (images.permute(0, 2, 3, 1).reshape(3, -1, 3) / 255).tolist()
    # Chroma is saturation times value.
    expected = [
        np.mean([s * v for _, s, v in (colorsys.rgb_to_hsv(*p) for p in image)]) for image in pixels
    ]
    np.testing.assert_allclose(stats(images).chroma, expected, rtol=1e-6)


def test_metrics():
    real = sample_set((uint8_images(20) // 2) + 60)
    fake = sample_set(((uint8_images(20) // 2) + 60) // 3)
    saturated = sample_set(torch.where(uint8_images(20) < 128, 0, 255).byte())
    assert ContrastRatio().compute(real=real, fake=real, extractor="").value == 1.0
    # A third, rounded down to whole grey levels.
    ratio = ContrastRatio().compute(real=real, fake=fake, extractor="")
    assert ratio.value == pytest.approx(1 / 3, rel=0.01)
    assert ContrastRatio().compute(real=real, fake=saturated, extractor="").value > 3
    assert Saturation().compute(real=real, fake=fake, extractor="").value == 0.0
    assert Saturation().compute(real=fake, fake=saturated, extractor="").value == 1.0


def test_doubled_colour_gives_a_chroma_ratio_of_two():
    grey = uint8_images(30, (1, 6, 6)).expand(-1, 3, -1, -1) // 2 + 60
    tint = uint8_images(30, (3, 6, 6), seed=1) // 8
    real, fake = sample_set(grey + tint), sample_set(grey + 2 * tint)
    assert ChromaRatio().compute(real=real, fake=fake, extractor="").value == pytest.approx(2.0)
    assert ChromaRatio().compute(real=real, fake=real, extractor="").value == 1.0
    assert not ChromaRatio.default
    with pytest.raises(ValueError, match="no colour to compare with"):
        ChromaRatio().compute(real=sample_set(grey), fake=fake, extractor="")


def test_errors_are_those_of_a_mean():
    real, fake = sample_set(uint8_images(30)), sample_set(uint8_images(45, seed=3))
    contrast = fake.pixels.contrast / real.pixels.contrast.mean()
    found = ContrastRatio().compute(real=real, fake=fake, extractor="")
    assert found.value == pytest.approx(contrast.mean())
    assert found.se == pytest.approx(contrast.std(ddof=1) / np.sqrt(45))
    groups = jackknife_groups(fake.labels)
    without = [contrast[groups != group].mean() for group in range(20)]
    assert found.replicates == pytest.approx(without)


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


def test_ratios_refuse_real_images_with_a_mean_of_zero():
    flat = sample_set(torch.full((3, 3, 4, 4), 7, dtype=torch.uint8))
    assert "contrast, and these have none" in ContrastRatio().refuses(real=flat, extractor="")
    assert "colour, and these have none" in ChromaRatio().refuses(real=flat, extractor="")
    colourful = sample_set(uint8_images(3, (3, 4, 4)))
    assert ContrastRatio().refuses(real=colourful, extractor="") is None
    assert ChromaRatio().refuses(real=colourful, extractor="") is None
    # Saturation only uses generated images.
    assert Saturation().refuses(real=flat, extractor="") is None
    bare = dataclasses.replace(flat, pixels=None)
    assert "needs the pixels of real images" in ContrastRatio().refuses(real=bare, extractor="")
    assert Saturation().refuses(real=bare, extractor="") is None
