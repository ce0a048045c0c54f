"""Embeddings of the noise level without trained weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Sines and cosines at frequencies 10000^(-i / (width/2 - endpoint)), (B,) => (B, width).

    With `sin_first` the order of the features is [sin, cos] (DDPM++), otherwise [cos, sin] (ADM).
    """

    def __init__(self, width: int, *, endpoint: bool, sin_first: bool) -> None:
        super().__init__()
        self.pairs = width // 2
        if width % 2 or self.pairs <= int(endpoint):
            raise ValueError(f"a positional embedding needs an even width above 2, got {width}")
        self.endpoint, self.sin_first = endpoint, sin_first

    def forward(self, c_noise: Tensor) -> Tensor:
        """Features (B, width) of `c_noise` (B,), float32."""
        # Not a buffer, because the published checkpoints do not contain these frequencies.
        index = torch.arange(self.pairs, dtype=torch.float32, device=c_noise.device)
        freqs = (1 / 10000) ** (index / (self.pairs - int(self.endpoint)))
        angle = c_noise[:, None] * freqs
        parts = (angle.sin(), angle.cos()) if self.sin_first else (angle.cos(), angle.sin())
        return torch.cat(parts, dim=1)


class FourierEmbedding(nn.Module):
    """[sin, cos] of 2 pi f c_noise with fixed random f ~ N(0, scale^2), (B,) => (B, width).

    Source: Song et al. (2021), NCSN++, with scale 16; iGCT's networks use 0.02.
    """

    freqs: Tensor

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"a Fourier embedding needs an even width, got {width}")
        freqs = torch.empty(width // 2)
        if not freqs.is_meta:  # where a first random draw takes a second of imports
            freqs.normal_().mul_(scale)
        self.register_buffer("freqs", freqs)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Features (B, width) of `c_noise` (B,)."""
        angle = c_noise[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([angle.sin(), angle.cos()], dim=1)
