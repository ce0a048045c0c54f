import numpy as np
import pytest
import torch

from methods.guidance_embedding import embed_guidance


@pytest.mark.parametrize(("dim", "scale"), [(4, 1.0), (32, 1.0), (256, 1000.0)])
def test_against_numpy(dim, scale):
    w = np.array([0.0, 0.25, 6.0, 14.0])
    i = np.arange(dim // 2)
    angle = scale * w[:, None] * 10000.0 ** (-i / (dim // 2 - 1))
    want = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    got = embed_guidance(torch.from_numpy(w), dim, scale)
    assert got.dtype == torch.float32
    # The angles are float32: their spacing is 1e-3 at 14000 and 1e-6 at 14.
    np.testing.assert_allclose(got.numpy(), want, atol=2e-6 * max(scale, 1.0))


def test_no_guidance_gives_sines_of_zero_and_cosines_of_one():
    e = embed_guidance(torch.zeros(2), 6)
    assert torch.equal(e, torch.tensor([[0.0, 0, 0, 1, 1, 1]] * 2))


@pytest.mark.parametrize("dim", [2, 7])
def test_dim_must_be_even_and_large_enough(dim):
    with pytest.raises(ValueError, match="even dim of at least 4"):
        embed_guidance(torch.zeros(1), dim)
