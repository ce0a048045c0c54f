import warnings

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from metrics.reconstruction import (
    mse,
    psnr,
    psnr_batch,
    psnr_limit,
    ssim,
    ssim_batch,
    ssim_gaussian,
)


def pair(n=20, channels=3, size=16, noise=12.0):
    """Smooth images and their noisy copies, uint8."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand((n, channels, 4, 4), generator=generator) * 255
    source = torch.nn.functional.interpolate(low, (size, size), mode="bilinear")
    strength = torch.arange(1, n + 1).reshape(-1, 1, 1, 1) / n * 2 * noise
    other = source + strength * torch.randn(source.shape, generator=generator)
    return source.round().byte(), other.round().clamp(0, 255).byte()


def nhwc(x):
    return x.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16), (3, 7)])
def test_psnr_and_ssim_equal_those_of_scikit_image(channels, size):
    source, other = pair(channels=channels, size=size)
    expected = [
        (
            peak_signal_noise_ratio(a, b, data_range=255),
            structural_similarity(a, b, channel_axis=2, data_range=255),
        )
        for a, b in zip(nhwc(source), nhwc(other), strict=True)
    ]
    np.testing.assert_allclose(psnr(source, other), [p for p, _ in expected], atol=1e-9)
    np.testing.assert_allclose(ssim(source, other), [s for _, s in expected], atol=1e-9)


def test_gaussian_ssim_is_that_of_wang():
    source, other = pair()
    expected = [
        structural_similarity(
            a, b, channel_axis=2, data_range=255,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(nhwc(source), nhwc(other), strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim_gaussian(source, other), expected, atol=1e-9)


def test_ssim_batch_equals_scikit_image_over_the_whole_batch():
    source, other = pair()
    expected = [
        structural_similarity(nhwc(source[i : i + 8]), nhwc(other[i : i + 8]), channel_axis=3,
                              data_range=255)
        for i in (0, 8)
    ]  # fmt: skip
    # The last four images are fewer than the window of seven.
    np.testing.assert_allclose(ssim_batch(source, other, 8), expected, atol=1e-9)
    with pytest.raises(ValueError, match="at least 7 images, got 6"):
        ssim_batch(source[:6], other[:6], 8)


def test_psnr_batch_is_that_of_the_whole_batch():
    source, other = pair()
    expected = [
        peak_signal_noise_ratio(source[i : i + 8].numpy(), other[i : i + 8].numpy(), data_range=255)
        for i in (0, 8, 16)
    ]
    np.testing.assert_allclose(psnr_batch(source, other, 8), expected, atol=1e-9)
    # By Jensen's inequality the PSNR of the mean error is below the mean PSNR.
    assert psnr_batch(source, other, 20)[0] < float(psnr(source, other).mean()) - 1


def test_equal_images():
    source, _ = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(mse(source, source), torch.zeros(20, dtype=torch.float64))
        assert torch.isinf(psnr(source, source)).all()
    np.testing.assert_allclose(ssim(source, source), 1.0, atol=1e-12)
    np.testing.assert_allclose(ssim_gaussian(source, source), 1.0, atol=1e-12)
    np.testing.assert_allclose(ssim_batch(source, source, 20), [1.0], atol=1e-12)


def test_psnr_limit_is_one_level_in_one_value():
    source, _ = pair()
    other = source.clone()
    other[:, 0, 0, 0] ^= 1
    np.testing.assert_allclose(psnr(source, other), psnr_limit((3, 16, 16)), atol=1e-9)


def test_constant_shift():
    source = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    other = source + 10
    np.testing.assert_allclose(psnr(source, other), 20 * np.log10(25.5), atol=1e-12)
    c1 = (0.01 * 255) ** 2  # for constant images only the term of the means is not 1
    luminance = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
    np.testing.assert_allclose(ssim(source, other), luminance, atol=1e-9)
    x = torch.linspace(-1, 0.5, 12).reshape(3, 1, 2, 2)
    np.testing.assert_allclose(mse(x, x + 0.25), 0.0625, atol=1e-7)


def test_values_do_not_depend_on_other_images_of_the_batch():
    source, other = pair()
    for measure in (mse, psnr, ssim, ssim_gaussian):
        parts = [measure(source[i : i + 3], other[i : i + 3]) for i in range(0, 20, 3)]
        np.testing.assert_allclose(torch.cat(parts), measure(source, other), rtol=0, atol=1e-12)


def test_sets_that_cannot_be_compared_are_refused():
    source, other = pair(size=6)
    with pytest.raises(ValueError, match="images of 6x6 are smaller than its 7x7 window"):
        ssim(source, other)
    with pytest.raises(ValueError, match="6x6 are smaller than its 7x7 window"):
        ssim_batch(source, other, 8)
    source, other = pair(size=8)
    with pytest.raises(ValueError, match="8x8 are smaller than its 11x11 window"):
        ssim_gaussian(source, other)
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(source, other[:5])
    with pytest.raises(ValueError, match="equal shapes of at least one image"):
        mse(source[:0], other[:0])
    with pytest.raises(ValueError, match=r"uint8 images .* got torch.float32"):
        ssim(source.float(), other.float())
