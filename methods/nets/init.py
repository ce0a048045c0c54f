"""Initial weights of the U-Nets, drawn from torch's global generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

LayerT = TypeVar("LayerT", bound="nn.Linear | nn.Conv2d")


@dataclass(frozen=True)
class Init:
    """Initial weights of the layers of one architecture.

    `xavier`: U(+-sqrt(6 / (fan_in + fan_out))), biases 0 (DDPM++, NCSN++). `kaiming`:
    U(+-sqrt(3 / fan_in)), biases likewise (ADM). Fans of a convolution include its kernel area.
    `gain` is the default scale of a layer and `qkv` that of attention layers. `final` is that of
    the last layer of a residual branch or of the network, which starts at (nearly) zero.
    """

    scheme: Literal["xavier", "kaiming"]
    gain: float
    qkv: float
    final: float

    def __call__(self, layer: LayerT, scale: float | None = None) -> LayerT:
        """Initialise `layer` in place with `scale` (default: `gain`), and return it."""
        scale = self.gain if scale is None else scale
        area = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
        fan_out, fan_in = layer.weight.shape[0] * area, layer.weight.shape[1] * area
        if self.scheme == "xavier":
            bound, bias_bound = math.sqrt(6 / (fan_in + fan_out)), 0.0
        else:
            bound = bias_bound = math.sqrt(3 / fan_in)
        with torch.no_grad():
            layer.weight.uniform_(-bound * scale, bound * scale)
            if layer.bias is not None:
                layer.bias.uniform_(-bias_bound * scale, bias_bound * scale)
        return layer

    def label(self, layer: LayerT) -> LayerT:
        """Initialise a layer for one-hot labels; ADM: N(0, 1), Kaiming normal times sqrt(K)."""
        if self.scheme == "xavier":
            return self(layer)
        if not layer.weight.is_meta:  # where a first random draw takes a second of imports
            nn.init.normal_(layer.weight)
        return layer
