import numpy as np
import pytest
import torch

from methods import Guidance
from methods.rules import FDG
from methods.rules.fdg import FDGKnobs, weigh_bands
from tests.methods.rules.calls import guide, oracle, outputs


def halve(x):
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean((1, 3))


def double(x):
    """Bilinear upsampling between pixel centres, as two matrix products."""
    height = len(x)
    matrix = np.zeros((2 * height, height))
    for i in range(2 * height):
        near = i // 2
        far = min(max(near + (1 if i % 2 else -1), 0), height - 1)
        matrix[i, near] += 0.75
        matrix[i, far] += 0.25
    return matrix @ x @ matrix.T


def test_against_numpy():
    d_cond, d_ref, _ = outputs(3, 8, 8)
    guided = guide(FDG(FDGKnobs(low=0.2, high=1.4, levels=3)), d_cond, d_ref).numpy()
    c, u = d_cond.numpy(), d_ref.numpy()
    for sample in range(4):
        for channel in range(3):
            update = c[sample, channel] - u[sample, channel]
            half = halve(update)
            quarter = halve(half)
            bands = [update - double(half), double(half - double(quarter)),
                     double(double(quarter))]  # fmt: skip
            np.testing.assert_allclose(sum(bands), update, rtol=1e-12, atol=1e-12)
            want = c[sample, channel] + 2.0 * sum(
                share * band for share, band in zip((1.4, 0.8, 0.2), bands, strict=True)
            )
            np.testing.assert_allclose(guided[sample, channel], want, rtol=1e-9, atol=1e-9)


def test_default_knobs_give_the_published_scales():
    k = FDGKnobs()
    assert 1 + 9 * k.low == pytest.approx(5.0)
    assert 1 + 9 * k.high == pytest.approx(10.0)


def test_brightness_gets_the_low_scale_and_a_checkerboard_the_high_scale():
    d_ref = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    rule = FDG(FDGKnobs(low=0.25, high=1.5))
    flat = torch.ones_like(d_ref)
    assert torch.allclose(guide(rule, flat, d_ref), 1.5 * flat, rtol=1e-12)
    i = torch.arange(8)
    board = ((-1.0) ** (i[:, None] + i)).double().expand_as(d_ref)
    assert torch.allclose(guide(rule, board, d_ref), 4.0 * board, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("levels", [2, 3, 5])
def test_bands_of_any_size_sum_to_the_image(size, levels):
    x = outputs(2, size, size)[0]
    assert torch.allclose(weigh_bands(x, [1.0] * levels), x, rtol=1e-12, atol=1e-12)
    coarse = weigh_bands(x, [0.0] * (levels - 1) + [1.0])
    assert torch.equal(coarse, x) == (size == 1)


def test_vectors_are_refused():
    assert "needs images" in oracle().supports(Guidance(3.0, FDG()), 18)
    assert oracle().supports(Guidance(1.0, FDG()), 18) is None
