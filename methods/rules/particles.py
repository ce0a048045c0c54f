"""Particles: several states per sample, which replace each other by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from methods.rng import SampleRNG


class ParticleRNG(SampleRNG):
    """Draws for `count` particles per sample, all from the sample's own stream: (B count, ...).

    Sample i stays a function of (seed, i), whatever else is in its batch.
    """

    def __init__(self, rng: SampleRNG, count: int) -> None:
        self.seed, self.indices, self._rng, self._count = rng.seed, rng.indices, rng, count

    def randn(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal (B count, *shape) float32."""
        return self._rng.randn((self._count, *shape), device).flatten(0, 1)

    def rand(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Uniform on [0, 1), (B count, *shape) float32."""
        return self._rng.rand((self._count, *shape), device).flatten(0, 1)


def systematic(log_weights: Tensor, u: Tensor) -> Tensor:
    """Indices (B, K) of the survivors among K particles with `log_weights` (B, K).

    `u` (B,) in [0, 1) shifts the K equally spaced points of each sample (Kitagawa 1996).
    """
    count = log_weights.shape[1]
    edges = log_weights.double().softmax(1).cumsum(1)
    points = (torch.arange(count, device=u.device) + u.double()[:, None]) / count
    return torch.searchsorted(edges, points).clamp(max=count - 1)


def gather(kept: Tensor, x: Tensor, state: dict[str, Any]) -> Tensor:
    """`x` (B K, ...) of the particles `kept` (B, K); tensors in `state` follow them."""
    batch, count = kept.shape
    rows = (kept + count * torch.arange(batch, device=kept.device)[:, None]).flatten()

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        whole = isinstance(value, Tensor) and value.ndim and len(value) == batch * count
        return value[rows] if whole else value

    state.update({key: moved(value) for key, value in state.items()})
    return x[rows]
