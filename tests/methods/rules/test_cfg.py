"""Classifier-free guidance: its trajectory, and the density that it samples from Gaussians."""

import numpy as np
import pytest
import torch

from methods.samplers import karras_sigmas
from tests.methods.rules import toy


@pytest.mark.parametrize("g", [0.5, 3.0])
def test_against_numpy(g):
    found = toy.sample("cfg", g)
    expected = toy.integrate(lambda x, d_c, d_u, s, step, stage: d_u + g * (d_c - d_u))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("s_c", "s_u"), [(0.6, 0.6), (0.6, 1.1)])
def test_gaussians_become_the_gaussian_of_the_closed_form(s_c, s_u):
    """Its deviation is s_c^g s_u^(1-g), so that equal widths give the exact g-tilted density."""
    m_c, m_u, g, top = 1.2, -0.3, 3.0, 80.0
    levels = karras_sigmas(800, 1e-3, top)
    noise = top * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    found = toy.of_gaussians("cfg", toy.gaussians(m_c, s_c, m_u, s_u), levels, noise, g)[:, 0]

    def shrunk(s):
        return s / np.sqrt(s**2 + top**2)

    slope = shrunk(s_c) ** g * shrunk(s_u) ** (1 - g)
    np.testing.assert_allclose(np.diff(found) / top, slope, rtol=1e-4)
    if s_c == s_u:
        # The state at the top is around the mean of the data, which the noise leaves out.
        mean = (m_u + g * (m_c - m_u)) * (1 - slope)
        np.testing.assert_allclose(found[1], mean, rtol=1e-4)
