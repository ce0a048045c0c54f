import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from methods.rng import SampleRNG
from methods.samplers import (
    Churn,
    heun_step,
    invert_heun,
    karras_sigmas,
    sample_consistency,
    sample_heun,
)

DATA = 0.5
CENTRE = 0.3


class Gaussian:
    """Exact denoiser of N(CENTRE, DATA^2), with a known flow; it counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, sigma):
        self.calls += 1
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return CENTRE + DATA**2 / (DATA**2 + sigma**2) * (x - CENTRE)


def flow(x, start, end):
    """Move x along the probability flow from level `start` to level `end`."""
    return CENTRE + (x - CENTRE) * math.sqrt((end**2 + DATA**2) / (start**2 + DATA**2))


def states(dtype=torch.float64):
    return 80 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(("steps", "low", "high", "rho"), [(18, 0.002, 80, 7), (40, 0.01, 50, 3)])
def test_karras_sigmas_against_numpy(steps, low, high, rho):
    sigmas = karras_sigmas(steps, low, high, rho)
    i = np.arange(steps)
    want = (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    assert sigmas.dtype == torch.float64
    np.testing.assert_allclose(sigmas.numpy(), [*want, 0.0], rtol=1e-12)
    assert float(sigmas[0]) == pytest.approx(high, rel=1e-12)
    assert float(sigmas[-2]) == pytest.approx(low, rel=1e-12)


def test_karras_sigmas_for_one_step():
    np.testing.assert_allclose(karras_sigmas(1).numpy(), [80.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "at least 1"),
        ((5, 0.0, 80.0), "0 < sigma_min"),
        ((5, 2.0, 1.0), "sigma_min < sigma_max"),
    ],
)
def test_karras_sigmas_refuse_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        karras_sigmas(*arguments)


def test_heun_follows_the_gaussian_flow():
    x = states()
    out = sample_heun(Gaussian(), x, karras_sigmas(200))
    # Second order: 200 steps leave about 1e-4 of the starting error.
    torch.testing.assert_close(out, flow(x, 80, 0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solve", [sample_heun, invert_heun])
def test_heun_has_second_order(solve):
    errors = []
    for steps in (50, 100, 200):
        # Skip the last step to 0, which is an Euler step.
        sigmas = karras_sigmas(steps + 1, 0.1, 10.0, 7.0)[:-1]
        x = states() / 80
        start, end = (10.0, 0.1) if solve is sample_heun else (0.1, 10.0)
        error = solve(Gaussian(), x, sigmas) - flow(x, start, end)
        errors.append(float(error.norm()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    # The next error term changes the measured order by a few percent at 50 steps.
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_number_of_calls(steps):
    denoise, sigmas = Gaussian(), karras_sigmas(steps)
    sample_heun(denoise, states(), sigmas)
    assert denoise.calls == 2 * steps - 1
    denoise.calls = 0
    if steps > 1:
        invert_heun(denoise, states(), sigmas)
        assert denoise.calls == 2 * (steps - 1)


def test_one_step_returns_the_denoiser_output():
    x = states()
    torch.testing.assert_close(
        sample_heun(Gaussian(), x, karras_sigmas(1)), Gaussian()(x, torch.tensor(80.0))
    )


def test_sampling_from_an_inversion_returns_the_input():
    sigmas = karras_sigmas(300)
    x0 = states() / 80
    latent = invert_heun(Gaussian(), x0, sigmas)
    torch.testing.assert_close(latent, flow(x0, 0.002, 80), rtol=1e-3, atol=1e-3)
    back = sample_heun(Gaussian(), latent, sigmas)
    # Sampling also includes the step from 0.002 to 0.
    torch.testing.assert_close(back, x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solve", [sample_heun, invert_heun])
def test_dtype_of_the_state(solve):
    seen = []

    def denoise(x, sigma):
        seen.append((x.dtype, sigma.dtype, sigma.ndim))
        # Like a network, return float32 for any input dtype.
        return Gaussian()(x, sigma).float()

    sigmas = karras_sigmas(4)
    assert solve(denoise, states(torch.float32), sigmas).dtype == torch.float64
    assert set(seen) == {(torch.float64, torch.float64, 0)}
    seen.clear()
    assert solve(denoise, states(), sigmas, dtype=torch.float32).dtype == torch.float32
    assert set(seen) == {(torch.float32, torch.float32, 0)}


def test_callback_sees_every_state():
    steps = []
    sigmas = karras_sigmas(5)
    out = sample_heun(Gaussian(), states(), sigmas, lambda *step: steps.append(step))
    assert [step for step, _, _ in steps] == list(range(5))
    assert [sigma for _, sigma, _ in steps] == sigmas[1:].tolist()
    assert torch.equal(steps[-1][2], out)


@pytest.mark.parametrize("solve", [sample_heun, invert_heun])
@pytest.mark.parametrize("sigmas", [[80.0], [1.0, 2.0], [2.0, 2.0], [1.0, -1.0]])
def test_grids_that_do_not_descend_are_refused(solve, sigmas):
    with pytest.raises(ValueError, match="must descend"):
        solve(Gaussian(), states(), torch.tensor(sigmas))


def test_heun_step_with_a_level_per_row():
    x = states()[:3]
    start, end = torch.tensor([80.0, 5.0, 0.5]), torch.tensor([40.0, 3.0, 0.4])
    together = heun_step(Gaussian(), x, start, end)
    for i in range(3):
        alone = heun_step(Gaussian(), x[i : i + 1], start[i], end[i])
        torch.testing.assert_close(together[i : i + 1], alone)


def drawer(*shape, dtype=torch.float32):
    draws = list(torch.randn(4, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype))
    left = iter(draws)
    return draws, lambda: next(left)


@pytest.mark.parametrize(("clamp", "between"), [(True, True), (True, False), (False, True)])
def test_consistency_steps_against_numpy(clamp, between):
    def denoise(x, sigma):
        return x / (1 + sigma) + 0.5

    draws, draw = drawer(6, 2)
    out = sample_consistency(denoise, (80.0, 2.0, 0.5), draw, clamp=clamp, between=between)
    want = None
    for level, noise in zip((80.0, 2.0, 0.5), draws, strict=False):
        x = (0 if want is None else want) + level * noise.numpy()
        want = x / (1 + level) + 0.5
        if clamp and (between or level == 0.5):
            want = np.clip(want, -1, 1)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(draw(), draws[3])


def test_consistency_makes_one_call_per_step_in_the_dtype_of_the_draws():
    seen = []

    def denoise(x, sigma):
        seen.append((x.dtype, sigma.dtype, float(sigma)))
        return x

    for dtype in (torch.float32, torch.float64):
        seen.clear()
        _, draw = drawer(2, 1, dtype=dtype)
        out = sample_consistency(denoise, (80.0, 0.5), draw, clamp=True)
        assert out.dtype == dtype
        assert seen == [(dtype, dtype, 80.0), (dtype, dtype, 0.5)]


def test_consistency_without_levels_is_refused():
    with pytest.raises(ValueError, match="at least one level"):
        sample_consistency(Gaussian(), (), drawer(1)[1], clamp=False)


IMAGENET = Churn(40, 0.05, 50, 1.003)
"""EDM's setting for ImageNet-64, with 256 steps."""


def by_numpy(denoise, x, sigmas, churn, noise):
    """Algorithm 2 of Karras et al. (2022)."""
    steps = len(sigmas) - 1
    for i, (t, after) in enumerate(pairwise(sigmas)):
        gamma = min(churn.amount / steps, np.sqrt(2) - 1) if churn.low <= t <= churn.high else 0
        hat = t + gamma * t
        if gamma:
            x = x + np.sqrt(hat**2 - t**2) * churn.noise * noise[i]
        d = (x - denoise(x, hat)) / hat
        moved = x + (after - hat) * d
        if after:
            d = (d + (moved - denoise(moved, after)) / after) / 2
            moved = x + (after - hat) * d
        x = moved
    return x


@pytest.mark.parametrize(
    ("churn", "steps"),
    [(IMAGENET, 256), (Churn(200), 18), (Churn(1, 1, 2, 0.9), 18), (Churn(0), 9)],
)
def test_stochastic_sampler_against_numpy(churn, steps):
    def denoise(x, sigma):
        return 0.7 * x / (1 + sigma**2) + 0.1

    sigmas = karras_sigmas(steps)
    rng, same = SampleRNG(3, range(4)), SampleRNG(3, range(4))
    x = 80 * rng.randn((2,)).to(torch.float64)
    out = sample_heun(denoise, x, sigmas, churn=churn, draw=lambda: rng.randn((2,)))
    same.randn((2,))
    noise = [
        same.randn((2,)).double().numpy() if churn.raised(t, steps) != t else None
        for t in sigmas[:-1].tolist()
    ]
    want = by_numpy(denoise, x.numpy(), sigmas.numpy(), churn, noise)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-10, atol=1e-12)


def test_noise_of_a_sample_does_not_depend_on_the_batch():
    def sampled(indices):
        rng = SampleRNG(0, indices)
        x = 80 * rng.randn((2,))
        return sample_heun(
            Gaussian(), x, karras_sigmas(18), churn=IMAGENET, draw=lambda: rng.randn((2,))
        )

    assert torch.equal(sampled(range(6))[[4, 1]], sampled([4, 1]))


def test_churn_keeps_the_distribution_of_the_data():
    rng = SampleRNG(0, range(4000))
    x = 80 * rng.randn((1,))
    out = sample_heun(
        Gaussian(), x, karras_sigmas(64), churn=Churn(20), draw=lambda: rng.randn((1,))
    )
    # Standard errors of mean and deviation: .008 and .006.
    assert float(out.mean()) == pytest.approx(CENTRE, abs=0.03)
    assert float(out.std()) == pytest.approx(DATA, abs=0.025)


def test_churn_without_draws_is_refused():
    with pytest.raises(ValueError, match="churn needs draws"):
        sample_heun(Gaussian(), states(), karras_sigmas(4), churn=IMAGENET)
