"""Settings of the U-Nets of published models, and of a small one, shared by the presets.

Sources: Karras et al. (2022, EDM), Hsu, Kao, Balestriero (2025, iGCT). Methods set the dropout.
"""

from __future__ import annotations

from methods.nets.config import UNetConfig

CIFAR10 = UNetConfig(
    arch="ncsnpp", channels=128, channel_mult=(2, 2, 2), num_blocks=4, attn_resolutions=(16,)
)
"""NCSN++ for CIFAR-10, 56.4M parameters: iGCT's."""

CIFAR10_EDM = CIFAR10.model_copy(update={"fourier_scale": 16.0})
"""The same network as EDM (VE) has it, for methods that start from EDM's weights: the fixed
frequencies of its noise features are among them."""

IMAGENET64 = UNetConfig(
    arch="adm",
    channels=192,
    channel_mult=(1, 2, 3, 4),
    num_blocks=3,
    attn_resolutions=(32, 16, 8),
)
"""ADM for ImageNet-64, 295.9M parameters: EDM's."""

IMAGENET64_NARROW = IMAGENET64.model_copy(update={"channel_mult": (1, 2, 2, 3)})
"""ADM with narrower inner levels, 182M parameters: each of iGCT's two networks."""

SMALL = UNetConfig(
    arch="ddpmpp",
    channels=64,
    channel_mult=(1, 2, 2),
    num_blocks=2,
    attn_resolutions=(16,),
    dropout=0.1,
)
"""DDPM++ with 7.0M parameters at 32x32, which one GPU trains in minutes."""

TINY = UNetConfig(
    arch="ddpmpp",
    channels=32,
    channel_mult=(1, 2),
    num_blocks=1,
    attn_resolutions=(8,),
    dropout=0.05,
)
"""DDPM++ with 0.75M parameters at 16x16, which one CPU core trains in an hour."""
