"""Samplers as free functions over a denoiser (x, sigma) -> denoised.

Sources: Karras et al. (2022, EDM) for Heun's method and its grid, Song et al. (2023) for the
multistep consistency sampler; those of the other solvers and grids are at their functions. The
denoiser gets x in the dtype of the state and sigma as a scalar tensor of that dtype, and returns a
tensor with the shape of x. The samplers do not switch gradients on or off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from methods.guidance import Denoise
from methods.settings import Grid, Solver

SOLVERS: tuple[Solver, ...] = get_args(Solver)
GRIDS: tuple[Grid, ...] = get_args(Grid)
BETA_MIN, BETA_RANGE = 0.1, 19.9
"""Of DDPM's linear schedule in continuous time (Song et al. 2021, SDE, appendix C)."""

StepCallback = Callable[[int, float, Tensor], None]
"""(step from 0, sigma reached, state (B, ...) at that sigma), called after every step."""


@dataclass(frozen=True)
class Sampler:
    """How a trajectory is integrated, and the spacing of its noise levels.

    All solvers but "heun" evaluate the denoiser once per step. "sde" adds noise in every step.
    """

    solver: Solver = "heun"
    grid: Grid = "edm"

    @property
    def is_usual(self) -> bool:
        """Whether it is EDM's."""
        return self == USUAL

    def sigmas(self, steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
        """Noise levels (steps + 1,) float64, from sigma_max down to sigma_min and then 0.

        "linear": evenly spaced times of DDPM's linear schedule of beta (Ho et al. 2020).
        "cosine": evenly spaced angles whose tangent is the level, as in the cosine schedule of
        Nichol and Dhariwal (2021), with both ends at the given levels instead of its offset.
        """
        if self.grid == "edm" or steps == 1:
            return karras_sigmas(steps, sigma_min, sigma_max, rho)
        ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64)
        times = _linear_time(ends) if self.grid == "linear" else ends.atan()
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        even = times[0] + ramp * (times[1] - times[0])
        sigmas = _linear_sigma(even) if self.grid == "linear" else even.tan()
        sigmas[0], sigmas[-1] = ends
        return torch.cat([sigmas, sigmas.new_zeros(1)])


USUAL = Sampler()


def _linear_sigma(t: Tensor) -> Tensor:
    return torch.expm1(BETA_RANGE / 2 * t**2 + BETA_MIN * t).sqrt()


def _linear_time(sigma: Tensor) -> Tensor:
    root = (BETA_MIN**2 + 2 * BETA_RANGE * torch.log1p(sigma**2)).sqrt()
    return (root - BETA_MIN) / BETA_RANGE


@dataclass(frozen=True)
class Churn:
    """Noise that is added before each step (EDM, algorithm 2): S_churn, S_min, S_max, S_noise."""

    amount: float
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0

    def raised(self, level: float, steps: int) -> float:
        """The level to which noise is added before a step from `level`, one of `steps`."""
        if not self.low <= level <= self.high:
            return level
        return level * (1 + min(self.amount / steps, math.sqrt(2) - 1))

    def add(self, x: Tensor, level: float, raised: float, draw: Callable[[], Tensor]) -> Tensor:
        """`x` (B, ...) at `raised` instead of `level`; draws normal noise if they differ."""
        if raised == level:
            return x
        return x + math.sqrt(raised**2 - level**2) * self.noise * draw().to(x)


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


@dataclass(frozen=True)
class Before:
    """The level and the denoised image (B, ...) of the previous step."""

    sigma: float
    denoised: Tensor


def single_step(
    solver: Solver,
    x: Tensor,
    denoised: Tensor,
    sigma: float,
    sigma_next: float,
    *,
    before: Before | None,
    draw: Callable[[], Tensor],
) -> Tensor:
    """One step of a solver that evaluates the denoiser once: at `x` (B, ...), level `sigma`.

    "euler": Euler's method on EDM's dx/dsigma, which is DDIM without noise (Song et al. 2021).
    "dpmpp-2m": DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), which also uses the step before.
    "sde": the posterior of the next level given D, as DDPM samples it (Ho et al. 2020, eq. 6 and
    7; DDIM with eta = 1), with the next `draw`.
    """
    if solver == "dpmpp-2m":
        if before is not None and sigma_next > 0:
            h, last = math.log(sigma / sigma_next), math.log(before.sigma / sigma)
            denoised = denoised + (denoised - before.denoised) * (h / (2 * last))
        return denoised + sigma_next / sigma * (x - denoised)
    if solver == "sde":
        mean = denoised + (sigma_next / sigma) ** 2 * (x - denoised)
        if sigma_next == 0:
            return mean
        return mean + sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2) * draw().to(x)
    return denoised + sigma_next / sigma * (x - denoised)


def sample_single(
    solver: Solver,
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
    draw: Callable[[], Tensor],
) -> Tensor:
    """Integrate `x` (B, ...) from sigmas[0] down, with one call of the denoiser per step."""
    _check_descending(sigmas)
    x, before = x.to(dtype), None
    for level, next_level in pairwise(sigmas.tolist()):
        denoised = denoise(x, x.new_tensor(level)).to(x)
        x = single_step(solver, x, denoised, level, next_level, before=before, draw=draw)
        before = Before(level, denoised)
    return x


def sample_heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: StepCallback | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    churn: Churn | None = None,
    draw: Callable[[], Tensor] | None = None,
) -> Tensor:
    """EDM's second-order sampler (algorithm 1): (B, ...) => (B, ...) in `dtype`.

    `x` is the noisy state at sigmas[0]. A standard normal draw must first be multiplied by
    sigma_max. `sigmas` (N + 1,) descend. A step to 0 is an Euler step, so that N steps down to 0
    call the denoiser 2 N - 1 times. With `churn` it is the stochastic one (algorithm 2), whose
    noise (B, ...) is the next `draw`.
    """
    _check_descending(sigmas)
    if (churn is None) != (draw is None):
        raise ValueError("churn needs draws of noise, and draws need churn")
    x, steps = x.to(dtype), len(sigmas) - 1
    for step, (level, next_level) in enumerate(pairwise(sigmas.tolist())):
        start = level
        if churn is not None and draw is not None:
            start = churn.raised(level, steps)
            x = churn.add(x, level, start, draw)
        x = _step(denoise, x, start, next_level)
        if callback is not None:
            callback(step, next_level, x)
    return x


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
    x = x0.to(dtype)
    for step, (level, next_level) in enumerate(pairwise(sigmas[sigmas > 0].flip(0).tolist())):
        x = _step(denoise, x, level, next_level)
        if callback is not None:
            callback(step, next_level, x)
    return x


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


def _step(denoise: Denoise, x: Tensor, level: float, next_level: float) -> Tensor:
    """A Heun step, or an Euler step to 0."""
    sigma, sigma_next = x.new_tensor(level), x.new_tensor(next_level)
    if next_level > 0:
        return heun_step(denoise, x, sigma, sigma_next)
    return x + (sigma_next - sigma) * _slope(denoise, x, sigma)
