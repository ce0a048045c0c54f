"""Samplers as free functions over a denoiser (x, sigma) -> denoised.

Sources: Karras et al. (2022, EDM) for Heun's method and its grid, Song et al. (2023) for the
multistep consistency sampler. The denoiser gets x in the dtype of the state and sigma as a scalar
tensor of that dtype, and returns a tensor with the shape of x. The samplers do not switch gradients
on or off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from methods.guidance import Denoise

StepCallback = Callable[[int, float, Tensor], None]
"""(step from 0, sigma reached, state (B, ...) at that sigma), called after every step."""


def karras_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Noise levels (steps + 1,) float64, from sigma_max down to sigma_min and then 0 (EDM, eq. 5).

    For one step the levels are sigma_max and 0.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def heun_step(denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One step of Heun's method on dx/dsigma = (x - D(x; sigma)) / sigma, between levels > 0.

    x is (B, ...). Both levels are scalar or (B,); sigma_next may be lower or higher. Calls the
    denoiser twice.
    """
    step = _broadcast(sigma_next - sigma, x)
    slope = _slope(denoise, x, sigma)
    slope_next = _slope(denoise, x + step * slope, sigma_next)
    return x + step * (slope + slope_next) / 2


def sample_heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: StepCallback | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """EDM's deterministic second-order sampler (algorithm 1): (B, ...) => (B, ...) in `dtype`.

    `x` is the noisy state at sigmas[0]. A standard normal draw must first be multiplied by
    sigma_max. `sigmas` (N + 1,) descend. A step to 0 is an Euler step, so that N steps down to 0
    call the denoiser 2 N - 1 times.
    """
    _check_descending(sigmas)
    return _integrate(denoise, x.to(dtype), sigmas, callback)


def invert_heun(
    denoise: Denoise,
    x0: Tensor,
    sigmas: Tensor,
    callback: StepCallback | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Invert `x0` (B, ...) to its latent at sigmas[0], in `dtype`, along the sampler's grid.

    `sigmas` descend, as for the sampler, and are followed upwards. A last level of 0 is skipped,
    since the slope is not defined there: x0 is used as the state at the smallest positive level. N
    positive levels give N - 1 Heun steps.
    """
    _check_descending(sigmas)
    return _integrate(denoise, x0.to(dtype), sigmas[sigmas > 0].flip(0), callback)


def sample_consistency(
    denoise: Denoise,
    sigmas: Sequence[float],
    draw: Callable[[], Tensor],
    *,
    clamp: bool,
    between: bool = True,
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1), one step per level.

    Starts from sigmas[0] (sigma_max) times the first draw. Each further level adds new noise of
    that level to the last sample. `draw` returns standard normal values (B, ...); the samples have
    their dtype. `clamp` clips the last sample to [-1, 1], and with `between` every earlier one too.
    """
    if not sigmas:
        raise ValueError("sigmas must name at least one level")
    denoised: Tensor | None = None
    for level in sigmas:
        noise = level * draw()
        x = noise if denoised is None else denoised + noise
        denoised = denoise(x, x.new_tensor(level))
        if clamp and between:
            denoised = denoised.clamp(-1, 1)
    assert denoised is not None
    return denoised.clamp(-1, 1) if clamp else denoised


def _check_descending(sigmas: Tensor) -> None:
    if len(sigmas) < 2 or bool((sigmas.diff() >= 0).any()) or float(sigmas[-1]) < 0:
        raise ValueError(f"sigmas must descend and not be negative, got {sigmas.tolist()}")


def _broadcast(sigma: Tensor, x: Tensor) -> Tensor:
    sigma = sigma.to(x)
    return sigma.reshape(-1, *[1] * (x.ndim - 1)) if sigma.ndim else sigma


def _slope(denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoise(x, sigma).to(x)) / _broadcast(sigma, x)


def _integrate(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: StepCallback | None
) -> Tensor:
    levels = sigmas.tolist()
    for step, (level, next_level) in enumerate(pairwise(levels)):
        sigma, sigma_next = x.new_tensor(level), x.new_tensor(next_level)
        if next_level > 0:
            x = heun_step(denoise, x, sigma, sigma_next)
        else:
            x = x + (sigma_next - sigma) * _slope(denoise, x, sigma)
        if callback is not None:
            callback(step, next_level, x)
    return x
