"""Conversions of predictions, on Gaussian data, whose conditional means are known in closed form.

For jointly Gaussian a and b, E[a | b] = E[a] + cov(a, b) / var(b) (b - E[b]).
"""

import pytest
import torch

from methods import from_eps, from_flow, from_v

MU, S = 0.7, 0.3
LABELS = torch.eye(5, 3)
SIGMA = torch.tensor([0.002, 0.3, 1.0, 20.0, 80.0], dtype=torch.float64)
X = MU + torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double() * (
    (S**2 + SIGMA**2).sqrt().reshape(-1, 1, 1, 1)
)


def exact(x, sigma):
    return MU + S**2 / (S**2 + wide(sigma) ** 2) * (x - MU)


def wide(values):
    return values.reshape(-1, 1, 1, 1)


def regression(state, mean, variance, of, covariance):
    """E[of | state] for `of` of mean `of`."""
    return of + covariance / variance * (state - mean)


def exact_eps(ab):
    """E[eps | x] for x = sqrt(ab) x0 + sqrt(1 - ab) eps."""
    return lambda x: regression(
        x, ab.sqrt() * MU, ab * S**2 + 1 - ab, torch.zeros_like(x), (1 - ab).sqrt()
    )


def exact_v(ab):
    """E[v | x] for v = sqrt(ab) eps - sqrt(1 - ab) x0."""
    covariance = (ab * (1 - ab)).sqrt() * (1 - S**2)
    return lambda x: regression(
        x, ab.sqrt() * MU, ab * S**2 + 1 - ab, -(1 - ab).sqrt() * MU, covariance
    )


def exact_velocity(t):
    """E[n - x0 | y] for y = (1 - t) x0 + t n."""
    variance = (1 - t) ** 2 * S**2 + t**2
    return lambda y: regression(y, (1 - t) * MU, variance, -MU, t - (1 - t) * S**2)


def check_inputs(labels, time, expected):
    assert torch.equal(labels, LABELS)
    torch.testing.assert_close(time, expected)


def test_noise_prediction_becomes_the_exact_denoiser():
    def predict(x, sigma, labels):
        check_inputs(labels, sigma, SIGMA)
        return exact_eps(1 / (1 + wide(sigma) ** 2))(x)

    torch.testing.assert_close(from_eps(predict)(X, SIGMA, LABELS), exact(X, SIGMA))


@pytest.mark.parametrize("sign", [1, -1])
def test_v_prediction_becomes_the_exact_denoiser(sign):
    def predict(x, sigma, labels):
        check_inputs(labels, sigma, SIGMA)
        return sign * exact_v(1 / (1 + wide(sigma) ** 2))(x)

    torch.testing.assert_close(from_v(predict, sign=sign)(X, SIGMA, LABELS), exact(X, SIGMA))
    assert not torch.allclose(from_v(predict, sign=-sign)(X, SIGMA, LABELS), exact(X, SIGMA))


@pytest.mark.parametrize("noise_at", [0, 1])
@pytest.mark.parametrize("top", [80.0, 1e6])
def test_velocity_becomes_the_exact_denoiser(noise_at, top):
    sigma = torch.cat([SIGMA[:-1], SIGMA.new_tensor([top])])
    x = X * wide(sigma / SIGMA)

    def predict(y, t, labels):
        check_inputs(labels, t, sigma / (1 + sigma) if noise_at else 1 / (1 + sigma))
        velocity = exact_velocity(wide(t if noise_at else 1 - t))(y)
        return velocity if noise_at else -velocity

    found = from_flow(predict, noise_at=noise_at)(x, sigma, LABELS)
    torch.testing.assert_close(found, exact(x, sigma))


def test_flow_must_say_where_its_noise_is():
    with pytest.raises(TypeError, match="noise_at"):
        from_flow(lambda y, t, labels: y)
    with pytest.raises(ValueError, match=r"0 or 1, got 0\.5"):
        from_flow(lambda y, t, labels: y, noise_at=0.5)


def linear_table(steps):
    """The alpha-bar of DDPM's linear schedule (Ho et al. 2020, section 4)."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)


@pytest.mark.parametrize("convert", [from_eps, from_v])
def test_table_gives_its_entries_and_what_is_between_in_ln_sigma(convert):
    table = linear_table(1000)
    sigmas = ((1 - table) / table).sqrt()
    between = (sigmas[400] * sigmas[401]).sqrt()
    given = torch.stack([sigmas[0], sigmas[37], sigmas[999], between])
    times = []

    def predict(x, time, labels):
        times.extend(time.tolist())
        return torch.zeros_like(x)

    convert(predict, alpha_bar=table.tolist())(X[:4], given, LABELS[:4])
    assert times == pytest.approx([0, 37, 999, 400.5], abs=1e-6)


@pytest.mark.parametrize("sigma", [0.002, 200.0])
def test_level_outside_the_table_is_refused(sigma):
    denoise = from_eps(lambda x, time, labels: x, alpha_bar=linear_table(1000))
    with pytest.raises(ValueError, match=r"levels from 0\.01 to 157.*declare sigma_min and sigma_"):
        denoise(X[:1], torch.tensor([sigma]), LABELS[:1])


@pytest.mark.parametrize("table", [[0.5], [0.1, 0.9], [1.0, 0.5], [[0.9, 0.1]]])
def test_unusable_table_is_refused(table):
    with pytest.raises(ValueError, match="alpha_bar"):
        from_eps(lambda x, time, labels: x, alpha_bar=table)
