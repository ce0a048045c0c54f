"""Typed settings of the networks, and the function that builds a network from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from methods.nets.arch import ArchName
from methods.nets.mlp import MLP
from methods.nets.unet import UNet
from methods.settings import Settings
from methods.spec import DataSpec

Positive = Annotated[int, Field(ge=1, le=1 << 16)]


class MLPConfig(Settings):
    """Residual network for vectors."""

    kind: Literal["mlp"] = "mlp"
    width: Positive = 64
    blocks: Positive = 3
    embedding: int = Field(
        32, ge=4, le=1 << 16, multiple_of=2, description="features of the noise level"
    )
    dropout: float = Field(0.0, ge=0, lt=1)


class UNetConfig(Settings):
    """U-Net for square images. The defaults are those of NCSN++ for CIFAR-10.

    EDM's CIFAR-10 networks are `ddpmpp` and `ncsnpp` (with `fourier_scale` 16), both with
    `augment_dim` 9. Its ImageNet-64 network is `adm` with 192 channels x (1, 2, 3, 4), 3 blocks and
    attention at 32, 16 and 8. iGCT's are `ncsnpp` and `adm` with 192 channels x (1, 2, 2, 3).
    """

    kind: Literal["unet"] = "unet"
    arch: ArchName = "ncsnpp"
    channels: int = Field(
        128, ge=4, le=1 << 16, description="base width, multiplied by channel_mult"
    )
    channel_mult: tuple[Positive, ...] = Field(
        (2, 2, 2), min_length=1, description="width factor per level, from full resolution down"
    )
    num_blocks: int = Field(4, ge=1, le=1000, description="residual blocks per encoder level")
    attn_resolutions: tuple[Positive, ...] = Field(
        (16,), description="sizes with self-attention; the innermost block always has it"
    )
    dropout: float = Field(0.0, ge=0, lt=1)
    fourier_scale: float = Field(
        0.02, gt=0, description="scale of ncsnpp's noise features; EDM: 16"
    )
    augment_dim: int = Field(
        0, ge=0, le=1 << 16, description="number of augmentation labels; EDM: 9"
    )
    conditional: bool = Field(True, description="whether the network takes class labels")


NetConfig = Annotated[MLPConfig | UNetConfig, Field(discriminator="kind")]


def build_net(config: NetConfig, spec: DataSpec, guidance_dim: int = 0) -> nn.Module:
    """Build the network of `config` for data of `spec`, initialised from torch's global generator.

    It maps (x, c_noise, labels, w_embed) to the shape of x. It takes `w_embed` if and only if
    `guidance_dim` > 0. Raises ValueError if the network does not fit the shape of the data.
    """
    if isinstance(config, MLPConfig):
        if len(spec.shape) != 1:
            raise ValueError(
                f"an mlp models vectors (D,), but {spec.name!r} has shape {spec.shape}: "
                "set kind = 'unet'"
            )
        return MLP(
            spec.shape[0],
            num_classes=spec.num_classes,
            width=config.width,
            blocks=config.blocks,
            embedding=config.embedding,
            dropout=config.dropout,
            guidance_dim=guidance_dim,
        )
    if not spec.is_image or spec.shape[1] != spec.shape[2]:
        raise ValueError(
            f"a unet models square images (C, H, H), but {spec.name!r} has shape {spec.shape}"
            + ("" if spec.is_image else ": set kind = 'mlp'")
        )
    return UNet(
        config.arch,
        resolution=spec.shape[1],
        image_channels=spec.shape[0],
        num_classes=spec.num_classes if config.conditional else 0,
        channels=config.channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_blocks,
        attn_resolutions=config.attn_resolutions,
        dropout=config.dropout,
        fourier_scale=config.fourier_scale,
        guidance_dim=guidance_dim,
        augment_dim=config.augment_dim,
    )
