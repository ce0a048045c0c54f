"""The embedding of the guidance weight for guided networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def embed_guidance(w: Tensor, dim: int, scale: float = 1000.0) -> Tensor:
    """[sin | cos] of scale w f_i with f_i = 10000^(-i / (dim/2 - 1)), (B,) => (B, dim) float32.

    `w` is g - 1 (`Guidance.w`). `dim` is even and at least 4. Sources: Meng et al. (2023) and
    Hsu, Kao, Balestriero (2025, iGCT), who use scale 1000; the toy data use 1.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"the guidance embedding needs an even dim of at least 4, got {dim}")
    half = dim // 2
    # Arguments reach 14000, where float32 has a resolution of 1e-3. Another order of operations
    # would give other features than published weights were trained on.
    index = torch.arange(half, dtype=torch.float32, device=w.device)
    freqs = torch.exp(index * -(math.log(10000) / (half - 1)))
    angle = (scale * w.to(torch.float32))[:, None] * freqs
    return torch.cat([angle.sin(), angle.cos()], dim=1)
