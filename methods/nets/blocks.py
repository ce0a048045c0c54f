"""The residual block of all three U-Nets."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nets.arch import Arch
from methods.nets.dropout import seeded_dropout
from methods.nets.resample import Direction, Resample, ResampledConv

Attend = Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor]
"""(q, k, v, (H, W)) -> output; q, k, v and output are (B, heads, H * W, channels per head)."""


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """GroupNorm with min(32, channels // 4) groups.

    Raises ValueError if the number of channels is not divisible by the groups.
    """
    groups = max(1, min(32, channels // 4))
    if channels % groups:
        raise ValueError(
            f"{channels} channels do not divide into {groups} groups: "
            "take a multiple of 4, above 128 a multiple of 32"
        )
    return nn.GroupNorm(groups, channels, eps=eps)


class UNetBlock(nn.Module):
    """Residual block with optional resampling by 2 and optional self-attention.

    Maps x (B, in_channels, H, W) and an embedding (B, emb_width) to (B, out_channels, H', W').
    """

    def __init__(
        self,
        arch: Arch,
        in_channels: int,
        out_channels: int,
        *,
        emb_width: int,
        dropout: float = 0.0,
        resample: Direction | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        init, taps = arch.init, arch.resample_filter
        self.scale_shift, self.skip_scale = arch.scale_shift, arch.skip_scale
        self.dropout = dropout

        def conv(c_in: int, c_out: int, kernel: int) -> nn.Conv2d:
            if resample is None:
                return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
            return ResampledConv(c_in, c_out, kernel, taps, resample)

        self.norm0 = group_norm(in_channels, arch.eps)
        self.conv0 = init(conv(in_channels, out_channels, 3))
        self.affine = init(nn.Linear(emb_width, out_channels * (2 if arch.scale_shift else 1)))
        self.norm1 = group_norm(out_channels, arch.eps)
        self.conv1 = init(nn.Conv2d(out_channels, out_channels, 3, padding=1), init.final)

        self.skip: nn.Module | None = None
        if in_channels != out_channels or (resample is not None and arch.project_resampled):
            self.skip = init(conv(in_channels, out_channels, 1))
        elif resample is not None:
            self.skip = Resample(taps, resample)

        self.attend: Attend | None = None  # replaces softmax attention; see `attention.py`
        self.heads = 0
        if attention:
            per_head = arch.channels_per_head
            self.heads = 1 if per_head is None else max(1, out_channels // per_head)
            self.norm2 = group_norm(out_channels, arch.eps)
            self.qkv = init(nn.Conv2d(out_channels, 3 * out_channels, 1), init.qkv)
            self.proj = init(nn.Conv2d(out_channels, out_channels, 1), init.final)

    def forward(self, x: Tensor, emb: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(B, C_in, H, W) => (B, C_out, H', W'). `dropout` draws the mask; None: no dropout."""
        h: Tensor = self.conv0(F.silu(self.norm0(x)))
        condition = self.affine(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        else:
            h = self.norm1(h + condition)
        h = self.conv1(seeded_dropout(F.silu(h), self.dropout, dropout))
        h = h + (x if self.skip is None else self.skip(x))
        h = h * self.skip_scale
        if self.heads:
            h = (h + self._attend(h)) * self.skip_scale
        return h

    def _attend(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv: Tensor = self.qkv(self.norm2(x))
        # In the published weights the channel axis is ordered as (head, channel, [q, k, v]).
        qkv = qkv.reshape(b, self.heads, c // self.heads, 3, height * width)
        q, k, v = (part.transpose(-1, -2) for part in qkv.unbind(3))
        if self.attend is None:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            attended = self.attend(q, k, v, (height, width))
        out: Tensor = self.proj(attended.transpose(-1, -2).reshape(b, c, height, width))
        return out
