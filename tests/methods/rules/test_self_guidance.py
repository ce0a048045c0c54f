import numpy as np
import pytest
import torch

from tests.methods.rules import toy


@pytest.mark.parametrize("g", [1.0, 3.0])
def test_against_numpy(g):
    label = toy.start()[2].argmax(1).numpy()

    def guide(x, d_c, d_u, s, step, stage):
        t = s / (1 + s) + 0.01
        higher = t / (1 - t)
        noise, noisier = (x - d_c) / s, (x - toy.denoised(x, higher, label)) / higher
        return x - s * ((x - d_u - g * (d_c - d_u)) / s + 3 * (noise - noisier))

    np.testing.assert_allclose(
        toy.sample("self-guidance", g), toy.integrate(guide), rtol=1e-9, atol=1e-9
    )


def test_pulls_a_gaussian_linearly_to_its_mean():
    std, mean, sigma, higher = 0.6, 1.0, 2.0, (2 / 3 + 0.01) / (1 / 3 - 0.01)
    x = torch.linspace(-3, 3, 5).double()[:, None]
    sigmas = torch.tensor([sigma, 0.0]).double()
    nets = toy.gaussians(mean, std, 0.0, 1.0)
    moved, plain = (
        toy.of_gaussians("self-guidance", nets, sigmas, x, 1.0, weight=w) for w in (2.0, 0.0)
    )
    slopes = [level / (std**2 + level**2) for level in (sigma, higher)]
    expected = 2 * sigma * (x.numpy() - mean) * (slopes[1] - slopes[0])
    np.testing.assert_allclose(moved - plain, expected, rtol=1e-9, atol=1e-12)


def test_no_effect_above_the_last_time():
    x = torch.linspace(-3, 3, 5).double()[:, None]
    nets, sigmas = toy.gaussians(1.0, 0.6, 0.0, 1.0), torch.tensor([2000.0, 1500.0]).double()
    moved, plain = (
        toy.of_gaussians("self-guidance", nets, sigmas, x, 1.0, weight=w) for w in (3.0, 0.0)
    )
    np.testing.assert_allclose(moved, plain, rtol=1e-12)


def test_one_more_evaluation_per_call():
    assert toy.counted("self-guidance", 1.0) == {"main": 22}
    assert toy.counted("self-guidance", 3.0) == {"main": 22, "null": 11}
