"""The size of a U-Net for images of any size: the network of the preset "auto"."""

from __future__ import annotations

from collections.abc import Sequence

from methods.nets.config import UNetConfig

INNERMOST = 8
"""Pixels per side below which images are not halved again."""
ATTENDED = 16
"""Pixels per side of the largest level with self-attention in its blocks."""
INNERMOST_MOST = 32
"""Pixels per side of the largest innermost level; its block attends to all of its pixels."""


def scaled_unet(shape: Sequence[int], dropout: float) -> UNetConfig:
    """A DDPM++ U-Net for square images (C, H, H).

    The full resolution has 2 H channels, rounded up to a multiple of 32 and at most 128, the inner
    levels twice as many. There are 1 or, above 16 pixels, 2 blocks per level, and the first inner
    level of at most 16 pixels attends. At 16x16 this is `published.TINY`, at 32x32
    `published.SMALL`.

    Raises ValueError for images that are not square or cannot be halved to 32 pixels or fewer.
    """
    _, height, width = shape
    if height != width:
        raise ValueError(
            f"images must be square, got {height}x{width} pixels: prepare them with --size "
            f"{_allowed(min(height, width))}"
        )
    sizes = [height]
    while sizes[-1] % 2 == 0 and (sizes[-1] > INNERMOST or len(sizes) == 1):
        sizes.append(sizes[-1] // 2)
    if sizes[-1] > INNERMOST_MOST:
        raise ValueError(
            f"{height} pixels per side cannot be halved to {INNERMOST_MOST} or fewer: prepare the "
            f"images with --size {_allowed(height)}"
        )
    return UNetConfig(
        arch="ddpmpp",
        channels=min(128, 32 * -(-2 * height // 32)),
        channel_mult=(1, *[2] * (len(sizes) - 1)),
        num_blocks=1 if height <= 16 else 2,
        attn_resolutions=tuple(size for size in sizes[1:] if size <= ATTENDED)[:1],
        dropout=dropout,
    )


def _allowed(side: int) -> int:
    """The nearest number of pixels per side that can be halved to 32 or fewer."""
    step = 1
    while side > INNERMOST_MOST * step:
        step *= 2
    return max(1, round(side / step)) * step
