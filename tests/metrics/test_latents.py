import numpy as np
import pytest
import torch
from scipy.stats import norm, uniform

from metrics.latents import latent_stats


def noise(n=400, shape=(1, 8, 8), seed=0):
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def test_noise_has_the_statistics_of_noise():
    n, total = 400, 400 * 64
    found = latent_stats(80 * noise(n), 80.0)
    # Four standard errors of each statistic of independent standard normal values.
    assert abs(found.mean) < 4 / total**0.5
    assert abs(found.std - 1) < 4 / (2 * total) ** 0.5
    assert abs(found.skewness) < 4 * (6 / total) ** 0.5
    assert abs(found.excess_kurtosis) < 4 * (24 / total) ** 0.5
    assert found.ks < 1.63 / total**0.5  # the 1% point of Kolmogorov's distribution
    assert abs(found.neighbours) < 4 / (n * 2 * 7 * 8) ** 0.5
    # Standard deviations over 64 dimensions, each known to one part in sqrt(128).
    assert found.spread_of_means == pytest.approx(1 / n**0.5, rel=4 / 128**0.5)
    assert found.spread_of_stds == pytest.approx(1 / (2 * n) ** 0.5, rel=4 / 128**0.5)


def test_scale_and_shift_change_the_statistics():
    found = latent_stats(3 * 80 * noise() + 160, 80.0)
    assert found.mean == pytest.approx(2, abs=0.08)
    assert found.std == pytest.approx(3, rel=0.02)
    grid = np.linspace(-12, 16, 28001)
    distance = np.abs(norm.cdf(grid, 2, 3) - norm.cdf(grid)).max()
    assert found.ks == pytest.approx(distance, abs=0.01)


def test_uniform_values_have_the_known_kurtosis_and_distance():
    x = (torch.rand((2000, 1, 8, 8), generator=torch.Generator().manual_seed(1)) - 0.5) * 12**0.5
    found = latent_stats(x, 1.0)
    assert found.excess_kurtosis == pytest.approx(-1.2, abs=0.02)
    assert found.skewness == pytest.approx(0, abs=0.03)
    grid = np.linspace(-4, 4, 80001)
    cdf = uniform.cdf(grid, -(3**0.5), 2 * 3**0.5)
    assert found.ks == pytest.approx(np.abs(cdf - norm.cdf(grid)).max(), abs=0.005)


def test_neighbour_correlation_of_shared_noise_is_one_half():
    n = 2000
    x = noise(n, (1, 1, 9))
    moving = (x[..., 1:] + x[..., :-1]) / 2**0.5  # correlation 1/2 with the next one
    assert latent_stats(moving, 1.0).neighbours == pytest.approx(0.5, abs=0.02)
    down = moving.transpose(2, 3)
    assert latent_stats(down, 1.0).neighbours == pytest.approx(0.5, abs=0.02)
    assert latent_stats(noise(n, (1, 1, 1)), 1.0).neighbours == 0.0


def test_dimensions_with_different_moments_have_a_spread():
    x = noise(1000, (1, 2, 2)) * 0.01 + torch.tensor([0.0, 0.0, 2.0, 2.0]).reshape(1, 1, 2, 2)
    assert latent_stats(x, 1.0).spread_of_means == pytest.approx(1.0, abs=0.002)
    scaled = noise(1000, (1, 2, 2)) * torch.tensor([1.0, 1.0, 3.0, 3.0]).reshape(1, 1, 2, 2)
    assert latent_stats(scaled, 1.0).spread_of_stds == pytest.approx(1.0, abs=0.1)


def test_latents_without_statistics_are_refused():
    with pytest.raises(ValueError, match="at least two latents"):
        latent_stats(noise(1), 80.0)
    with pytest.raises(ValueError, match="latents are constant"):
        latent_stats(torch.ones(3, 1, 2, 2), 80.0)
