"""Denoisers from networks that predict noise, v, x0 or the velocity of a flow.

With x = x0 + sigma n, all of them see a scaled x: a variance-preserving one, x / sqrt(1 + sigma^2),
with alpha_bar = 1 / (1 + sigma^2), or that of a straight path, x / (1 + sigma). Sources: Ho et al.
(2020, DDPM) for noise, Salimans and Ho (2022) for v, Liu et al. (2023, rectified flow) for flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from methods.base import Denoiser

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scaled x (B, ...), time (B,), labels (B, K)) -> prediction (B, ...)."""


def from_eps(predict: Predict, *, alpha_bar: Sequence[float] | Tensor | None = None) -> Denoiser:
    """D = x - sigma eps, for a network that predicts the noise eps of a variance-preserving state.

    Its time is sigma or, with the table `alpha_bar` (T,) of its training, which falls from near 1,
    the place in this table, 0 to T - 1: between two entries by interpolation in ln sigma. Raises
    ValueError for a sigma outside the table.
    """
    time = _times(alpha_bar)

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        level = _level(sigma, x)
        return x - level * predict(x / (1 + level**2).sqrt(), time(sigma), labels)

    return denoise


def from_v(
    predict: Predict,
    *,
    alpha_bar: Sequence[float] | Tensor | None = None,
    sign: Literal[1, -1] = 1,
) -> Denoiser:
    """D = (x / sqrt(1 + sigma^2) - sigma v) / sqrt(1 + sigma^2), for v of such a state.

    v is sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0, or with `sign` -1 the opposite. Time as in
    `from_eps`.
    """
    time = _times(alpha_bar)

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        level = _level(sigma, x)
        root = (1 + level**2).sqrt()
        v = sign * predict(x / root, time(sigma), labels)
        return (x / root - level * v) / root

    return denoise


def from_sample(predict: Predict) -> Denoiser:
    """D of a network that predicts x0 itself from such a state. Its time is sigma."""

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return predict(x / (1 + _level(sigma, x) ** 2).sqrt(), sigma, labels)

    return denoise


def from_flow(predict: Predict, *, noise_at: Literal[0, 1]) -> Denoiser:
    """D of a network that predicts the velocity dy/dt of the straight path between x0 and noise n.

    `noise_at` is the time t of pure noise, which a file of weights does not show:

    * 1: y = (1 - t) x0 + t n and v = n - x0, as in REPA and MeanFlow
    * 0: y = t x0 + (1 - t) n and v = x0 - n, as in the official SiT
    """
    if noise_at not in (0, 1):
        raise ValueError(f"noise_at is the time of pure noise, 0 or 1, got {noise_at!r}")

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        noise = sigma / (1 + sigma)  # the share of the noise in y
        y = x / (1 + _level(sigma, x))
        v = predict(y, noise if noise_at == 1 else 1 / (1 + sigma), labels)
        return y - _level(noise, x) * (v if noise_at == 1 else -v)

    return denoise


def table_time(sigma: Tensor, levels: Tensor) -> Tensor:
    """The places (B,) of `sigma` (B,) in a table of ascending `levels` (T,), both float64.

    They are interpolated in ln sigma and limited to 0 ... T - 1.
    """
    logs = levels.log()
    log = sigma.log().clamp(logs[0], logs[-1])
    above = torch.searchsorted(logs, log).clamp(1, len(logs) - 1)
    below, top = logs[above - 1], logs[above]
    return above - 1 + (log - below) / (top - below)


def _level(sigma: Tensor, x: Tensor) -> Tensor:
    """`sigma` (B,) as (B, 1, ..., 1)."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def _times(alpha_bar: Sequence[float] | Tensor | None) -> Callable[[Tensor], Tensor]:
    """The times (B,) of levels sigma (B,)."""
    if alpha_bar is None:
        return lambda sigma: sigma
    table = torch.as_tensor(alpha_bar, dtype=torch.float64).cpu()
    if table.ndim != 1 or len(table) < 2 or not ((table > 0) & (table < 1)).all():
        raise ValueError("alpha_bar is a table (T,) of numbers between 0 and 1")
    if (table.diff() >= 0).any():
        raise ValueError("alpha_bar must fall: its first entry has the least noise")
    levels = ((1 - table) / table).sqrt()
    low, high = float(levels[0]), float(levels[-1])

    def time(sigma: Tensor) -> Tensor:
        given = sigma.double().cpu()
        if (given < low * (1 - 1e-6)).any() or (given > high * (1 + 1e-6)).any():
            raise ValueError(
                f"alpha_bar has levels from {low:.4g} to {high:.4g}, and sigma is "
                f"{float(given.min()):.4g}: declare sigma_min and sigma_max within them"
            )
        return table_time(given, levels).to(sigma)

    return time
