import numpy as np
import torch

from tests.methods.rules import toy


def test_against_finite_differences():
    label = toy.start()[2].argmax(1).numpy()

    def guide(x, d_c, d_u, s, step, stage):
        h = 1e-4 * (1 + s)
        slope = np.zeros_like(x)
        for i in range(2):
            shift = h * np.eye(2)[i]
            pair = (toy.denoised(x + sign * shift, s, label).sum(1) for sign in (1, -1))
            slope[:, i] = -np.subtract(*reversed(list(pair))) / (2 * h)
        return d_c + 2 * slope * (d_c - d_u)

    np.testing.assert_allclose(toy.sample("reg"), toy.integrate(guide), rtol=1e-5, atol=1e-5)


def test_gaussian_scales_the_update_by_its_share_of_the_variance():
    std, sigma = 0.6, 2.0
    x = torch.linspace(-3, 3, 5).double()[:, None]
    nets, sigmas = toy.gaussians(1.0, std, 0.0, 1.1), torch.tensor([sigma, 0.0]).double()
    off, reg, cfg = (
        toy.of_gaussians("reg", nets, sigmas, x, g, strength=s)
        for g, s in ((1.0, 1.0), (3.0, 1.0), (3.0, 0.0))
    )
    np.testing.assert_allclose(reg - off, (cfg - off) * std**2 / (std**2 + sigma**2), rtol=1e-9)


def test_gradient_costs_two_evaluations():
    assert toy.counted("reg") == {"main": 11 + 22, "null": 11}
