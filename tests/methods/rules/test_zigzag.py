import numpy as np
import pytest
import torch

from tests.methods.rules import toy


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_against_numpy(share):
    def step(x, cond, null, s, t, k):
        down = toy.cfg_euler(x, cond, null, s, t)
        if t == 0 or k >= share * 9:
            return down
        up = down + (s - t) * (down - null(down, t)) / t
        return toy.cfg_euler(up, cond, null, s, t)

    found = toy.sample("zigzag", share=share)
    np.testing.assert_allclose(found, toy.walk(step), rtol=1e-9, atol=1e-9)


def test_state_of_equal_gaussians_after_one_zigzag():
    s, m_u, gap, g, sigma, end = 0.8, -0.4, 1.5, 3.0, 2.0, 0.7
    nets = toy.gaussians(m_u + gap, s, m_u, s)
    x = torch.linspace(-4, 4, 9).double()[:, None]
    sigmas = torch.tensor([sigma, end], dtype=torch.float64)
    found = toy.of_gaussians("zigzag", nets, sigmas, x, g)
    slope, update = sigma**2 / (s**2 + sigma**2), gap * sigma**2 / (s**2 + sigma**2)
    y = x.numpy() - m_u

    def down(y):
        return y - (1 - end / sigma) * (y * slope - g * update)

    up = (1 + (sigma - end) * end / (s**2 + end**2)) * down(y)
    np.testing.assert_allclose(found, m_u + down(up), rtol=1e-12)


def test_at_high_noise_it_doubles_the_scale():
    nets, x = toy.gaussians(1.0, 0.5, 0.0, 0.5), torch.zeros(1, 1).double()
    sigmas = torch.tensor([60.0, 50.0]).double()
    found = toy.of_gaussians("zigzag", nets, sigmas, x, 2.0)
    plain = toy.of_gaussians("zigzag", nets, sigmas, x, 4.0, share=0.0)
    np.testing.assert_allclose(found, plain, rtol=1e-3)


def test_five_evaluations_per_zigzag():
    assert toy.counted("zigzag") == {"main": 6 + 5, "null": 6 + 2 * 5}
