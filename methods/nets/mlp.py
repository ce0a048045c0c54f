"""A small residual network for vectors, with the inputs of the U-Nets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nets.dropout import seeded_dropout
from methods.nets.guidance_term import guidance_term


class MLPBlock(nn.Module):
    """h + linear(SiLU(linear(h) + affine(emb))), (B, width) => (B, width)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.linear0 = nn.Linear(width, width)
        self.affine = nn.Linear(width, width)
        self.linear1 = nn.Linear(width, width)
        self.dropout = dropout

    def forward(self, h: Tensor, emb: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(B, width) => (B, width). `dropout` draws the mask; None: no dropout."""
        inner = F.silu(self.linear0(F.silu(h)) + self.affine(emb))
        out: Tensor = h + self.linear1(seeded_dropout(inner, self.dropout, dropout))
        return out


class MLP(nn.Module):
    """Residual network F(x; c_noise, labels, guidance) for vectors of `dim` values.

    `embedding` (even) is the number of features of the noise level. `guidance_dim` > 0 adds
    `map_w_embed`. The output starts at zero.
    """

    freqs: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_classes: int,
        width: int,
        blocks: int,
        embedding: int,
        dropout: float = 0.0,
        guidance_dim: int = 0,
    ) -> None:
        super().__init__()
        if embedding % 2:
            raise ValueError(f"embedding must be even, got {embedding}")
        # sigma from 0.002 to 80 is c_noise from -1.6 to 1.1. The longest period is four times that
        # range, so that its feature is monotonic. The shortest is a twentieth, a factor of 1.7 in
        # sigma.
        periods = torch.logspace(math.log10(11.0), math.log10(0.135), embedding // 2)
        self.register_buffer("freqs", 2 * math.pi / periods)
        self.label_gain = math.sqrt(num_classes)
        self.map_noise = nn.Linear(embedding, width)
        self.map_label = nn.Linear(num_classes, width)
        self.map_w_embed = nn.Linear(guidance_dim, width) if guidance_dim else None
        self.map_layer = nn.Linear(width, width)
        self.first = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(MLPBlock(width, dropout) for _ in range(blocks))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor,
        w_embed: Tensor | None = None,
        *,
        dropout: torch.Generator | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Output (B, dim) for scaled vectors `x` (B, dim).

        `c_noise` (B,) is ln(sigma) / 4, `labels` (B, K) one-hot with zeros for null, `w_embed`
        (B, guidance_dim) the embedding of the guidance weight. Masks are drawn from `dropout`;
        None: no dropout. Raises ValueError for any `augment`, if `w_embed` is missing, and if the
        network takes no `w_embed`.
        """
        if augment is not None:
            raise ValueError("this network takes no augmentation labels")
        angle = c_noise[:, None] * self.freqs
        emb = self.map_noise(torch.cat([angle.sin(), angle.cos()], dim=1))
        emb = emb + self.map_label(labels * self.label_gain)
        emb = emb + guidance_term(self.map_w_embed, w_embed)
        emb = F.silu(self.map_layer(F.silu(emb)))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, emb, dropout)
        out: Tensor = self.last(F.silu(h))
        return out
