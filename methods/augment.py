"""Non-leaking augmentation of training images: the network is told what was done to them.

Source: Karras et al. (2022, EDM), appendix F.2, table 6, after Karras et al. (2020, ADA). Each
image is changed geometrically before noise is added. The parameters of the change are inputs of the
network, and zeros in sampling, so that samples are not changed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from methods.rng import BatchRNG

AUGMENT_LABELS = 9
SCALE = 2**0.2
"""Base of the random scale, and of the random stretch."""
SHIFT = 1 / 8
"""Standard deviation of the shift, as a share of the image's width."""


def augment_images(x0: Tensor, rng: BatchRNG, p: float) -> tuple[Tensor, Tensor]:
    """Changed images (B, C, H, H) and their augmentation labels (B, 9)."""
    changes = draw_changes(rng, p).to(x0.device)
    return change_images(x0, changes), augment_labels(changes)


def draw_changes(rng: BatchRNG, p: float) -> Tensor:
    """Random parameters (B, 8) of changes; 0: no change.

    In this order: mirrored, upside down (0 or 1); scale, in powers of `SCALE`; rotation; direction
    of a stretch, and its size in powers of `SCALE`; shift to the right and down in units of
    `SHIFT`. Angles are in radians. Images are mirrored with probability 1/2. Each other change has
    probability p, and then is upside down with probability 1/2.
    """
    u, n = rng.rand(9), rng.randn(4)
    active = u[:, :5] < p
    angles = math.pi * (2 * u[:, 5:7] - 1)
    flips = (u[:, 7:9] < 0.5).to(n)
    zero = torch.zeros_like(n[:, 0])
    return torch.stack(
        [
            flips[:, 0],
            torch.where(active[:, 0], flips[:, 1], zero),
            torch.where(active[:, 1], n[:, 0], zero),
            torch.where(active[:, 2], angles[:, 0], zero),
            torch.where(active[:, 3], angles[:, 1], zero),
            torch.where(active[:, 3], n[:, 1], zero),
            torch.where(active[:, 4], n[:, 2], zero),
            torch.where(active[:, 4], n[:, 3], zero),
        ],
        dim=1,
    )


def augment_labels(changes: Tensor) -> Tensor:
    """The network's inputs (B, 9) for changes (B, 8); all 0 for an image as it is."""
    mirror, upside, scale, turn, direction, stretch, right, down = changes.unbind(1)
    return torch.stack(
        [
            mirror, upside, scale, turn.cos() - 1, turn.sin(),
            stretch * direction.cos(), stretch * direction.sin(), right, down,
        ],
        dim=1,
    )  # fmt: skip


def change_images(x0: Tensor, changes: Tensor) -> Tensor:
    """Images (B, C, H, H) changed by `changes` (B, 8): flips first, shifts last.

    Positive angles turn counterclockwise. Flips are exact. Others interpolate with the cubic of
    Catmull and Rom, and what lies outside is reflected.
    """
    mirror, upside = (changes[:, k].reshape(-1, 1, 1, 1) > 0 for k in (0, 1))
    x = torch.where(mirror, x0.flip(3), x0)
    x = torch.where(upside, x.flip(2), x)
    # Coordinates run from -1 to 1, to the right and down. The sampler needs the inverse.
    inverse = torch.linalg.inv(_matrices(changes.to(torch.float64)))[:, :2].to(x)
    grid = functional.affine_grid(inverse, list(x.shape), align_corners=False)
    moved = _interpolate(x, grid)
    still = (changes[:, 2:] == 0).all(1).reshape(-1, 1, 1, 1)
    return torch.where(still, x, moved)


def _interpolate(x: Tensor, grid: Tensor) -> Tensor:
    """Values of `x` (B, C, H, H) at the points `grid` (B, H, H, 2).

    torch's own bicubic kernel (a = -.75) does not keep ramps: it moves images by .05 pixels.
    """
    size = x.shape[3]
    position = ((grid + 1) * size - 1) / 2
    first = position.floor()
    share = position - first
    taps = []
    for offset in (-1, 0, 1, 2):
        t = (share - offset).abs()
        near, far = (1.5 * t - 2.5) * t * t + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
        index = (first.long() + offset) % (2 * size)
        taps.append((torch.where(t <= 1, near, far), torch.minimum(index, 2 * size - 1 - index)))
    flat = x.flatten(2)
    out = torch.zeros_like(x)
    for across, column in ((w[..., 0], i[..., 0]) for w, i in taps):
        for down, row in ((w[..., 1], i[..., 1]) for w, i in taps):
            places = (row * size + column).flatten(1)[:, None].expand_as(flat)
            out += flat.gather(2, places).reshape(x.shape) * (across * down)[:, None]
    return out


def _matrices(changes: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that move the points of an image, without flips."""
    scale, turn, direction, stretch, right, down = changes[:, 2:].unbind(1)
    longer = SCALE**stretch
    back = _linear(SCALE**scale, SCALE**scale, torch.zeros_like(turn))
    moved = _turned(turn) @ back
    moved = _turned(direction) @ _linear(longer, 1 / longer, turn) @ _turned(-direction) @ moved
    # The image is 2 wide in these coordinates.
    moved[:, 0, 2], moved[:, 1, 2] = 2 * SHIFT * right, 2 * SHIFT * down
    return moved


def _linear(x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(like)], dim=1))


def _turned(angle: Tensor) -> Tensor:
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cos, sin, zero, -sin, cos, zero, zero, zero, one)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)
