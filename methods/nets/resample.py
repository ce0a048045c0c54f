"""Resampling of images by 2, alone or with a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Direction = Literal["up", "down"]


def filter_2d(taps: Sequence[int]) -> Tensor:
    """Outer product of a 1-D filter with itself, normalised to sum 1: (1, 1, L, L)."""
    row = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(row, row)
    return (kernel / kernel.sum())[None, None]


def resample(x: Tensor, kernel: Tensor, direction: Direction, padding: int | None = None) -> Tensor:
    """(B, C, H, W) => (B, C, 2H, 2W) or (B, C, H/2, W/2), `kernel` applied to each channel.

    Upsampling is the transposed convolution, multiplied by 4 to keep the mean. The default
    `padding` makes the size change by exactly 2.
    """
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    if padding is None:
        padding = (kernel.shape[-1] - 1) // 2
    if direction == "up":
        return F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)


class Resample(nn.Module):
    """Resampling without weights; its only state is the buffer of the filter."""

    resample_filter: Tensor

    def __init__(self, taps: Sequence[int], direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        self.register_buffer("resample_filter", filter_2d(taps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) => (B, C, 2H, 2W) or (B, C, H/2, W/2)."""
        return resample(x, self.resample_filter, self.direction)


class ResampledConv(nn.Conv2d):
    """Resampling, then a convolution with an odd kernel that keeps the size.

    With `filter_last` (downsampling only) the convolution comes first and includes the padding of
    the filter, so that values near the border differ.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        taps: Sequence[int],
        direction: Direction,
        *,
        filter_last: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        if filter_last and direction == "up":
            raise ValueError("filter_last is for downsampling")
        self.direction, self.filter_last = direction, filter_last
        self.register_buffer("resample_filter", filter_2d(taps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) => (B, C_out, 2H, 2W) or (B, C_out, H/2, W/2)."""
        if not self.filter_last:
            return super().forward(resample(x, self.resample_filter, self.direction))
        room = (self.resample_filter.shape[-1] - 1) // 2
        x = F.conv2d(x, self.weight, self.bias, padding=self.kernel_size[0] // 2 + room)
        return resample(x, self.resample_filter, self.direction, padding=0)
