"""Vision transformers with a class token, built from the weights in a file.

Dosovitskiy et al. (2021); layer scale as in Touvron et al. (2021), CaiT, equation 4; gated
feed-forward as in Shazeer (2020), GLU Variants. DINOv2 and CLIP name their weights differently and
differ in a few choices, which are the fields of `VisionTransformer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

HEAD = 64
"""Channels of one attention head, in every published size of both families."""

T = TypeVar("T")
Pair = tuple[Tensor, Tensor]
"""Weight and bias."""


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU: x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def swiglu(x: Tensor) -> Tensor:
    """(..., 2 H) -> (..., H): SiLU of the first half times the second."""
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


@dataclass(frozen=True)
class Block:
    """Attention and feed-forward, each with normalisation and residual; scales (D,) or None."""

    norm1: Pair
    qkv: Pair
    out: Pair
    scale1: Tensor | None
    norm2: Pair
    up: Pair
    down: Pair
    scale2: Tensor | None


@dataclass(frozen=True)
class VisionTransformer:
    """Square images (B, 3, S, S), normalised as the network was trained -> (B, D) or (B, E).

    `patch` (D, 3, P, P) embeds the patches; `token` (D,) is put before them, `positions`
    (1 + (S / P)^2, D) are added. `pre` normalises before the blocks, `post` the class token after
    them; `projection` is (D, E).
    """

    patch: Tensor
    patch_bias: Tensor | None
    token: Tensor
    positions: Tensor
    pre: Pair | None
    blocks: tuple[Block, ...]
    post: Pair
    projection: Tensor | None
    epsilon: float
    activation: Callable[[Tensor], Tensor]

    @property
    def width(self) -> int:
        """D."""
        return self.patch.shape[0]

    @property
    def side(self) -> int:
        """S, the side of the images in pixels."""
        return math.isqrt(len(self.positions) - 1) * self.patch.shape[-1]

    def to(self, device: torch.device) -> VisionTransformer:
        """The same network on another device."""
        return moved(self, device)

    def tensors(self) -> dict[str, Tensor]:
        """All weights, by their path in the network."""
        return dict(_named(self, ""))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) float32 -> (B, D), or (B, E) with a projection."""
        x = F.conv2d(x, self.patch, self.patch_bias, stride=self.patch.shape[-1])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), x], dim=1) + self.positions
        if self.pre is not None:
            x = self._norm(x, self.pre)
        for block in self.blocks:
            x = x + _scaled(self._attention(self._norm(x, block.norm1), block), block.scale1)
            hidden = self.activation(F.linear(self._norm(x, block.norm2), *block.up))
            x = x + _scaled(F.linear(hidden, *block.down), block.scale2)
        x = self._norm(x[:, 0], self.post)
        return x if self.projection is None else x @ self.projection

    def _norm(self, x: Tensor, pair: Pair) -> Tensor:
        return F.layer_norm(x, (self.width,), *pair, eps=self.epsilon)

    def _attention(self, x: Tensor, block: Block) -> Tensor:
        b, n, d = x.shape
        qkv = F.linear(x, *block.qkv).view(b, n, 3, d // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return F.linear(mixed.transpose(1, 2).reshape(b, n, d), *block.out)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


def moved(part: T, device: torch.device) -> T:
    """A copy of a network, a block, a tuple or a tensor, with all tensors on the device."""
    found: object = part
    if isinstance(part, Tensor):
        found = part.to(device)
    elif isinstance(part, tuple):
        found = tuple(moved(p, device) for p in part)
    elif isinstance(part, VisionTransformer | Block):
        found = replace(
            part, **{f.name: moved(getattr(part, f.name), device) for f in fields(part)}
        )
    return found  # type: ignore[return-value]


def _named(part: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, tuple):
        for i, element in enumerate(part):
            yield from _named(element, f"{name}.{i}")
    elif isinstance(part, VisionTransformer | Block):
        for f in fields(part):
            yield from _named(getattr(part, f.name), f"{name}.{f.name}")
