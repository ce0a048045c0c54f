"""EDM2: EDM's denoiser with a magnitude-preserving U-Net, trained elsewhere.

Sources: Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models"
and "Guiding a Diffusion Model with a Bad Version of Itself" for its sampling and guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from methods.nets.edm2 import EDM2Precond, UNet
from methods.pretrained import Pretrained, PretrainedConfig
from methods.registry import register
from methods.settings import Preset, Settings
from methods.spec import DataSpec

Positive = Annotated[int, Field(ge=1, le=1 << 16)]


class EDM2Net(Settings):
    """EDM2's U-Net. The published sizes differ in `channels`: 64 (XXS), 128 (XS) ... 448 (XXL)."""

    channels: int = Field(192, ge=1, le=1 << 16)
    channel_mult: tuple[Positive, ...] = Field((1, 2, 3, 4), min_length=1)
    num_blocks: int = Field(3, ge=1, le=1000)
    attn_resolutions: tuple[Positive, ...] = (16, 8)
    channels_per_head: int = Field(64, ge=1, le=1 << 16)
    conditional: bool = True


class EDM2Config(PretrainedConfig):
    """EDM2's network and sampler. No published network was trained with dropped labels."""

    net: EDM2Net
    sigma_data: float = Field(0.5, gt=0)
    null_label: bool = False


@register
class EDM2(Pretrained[EDM2Config]):
    """An imported network of EDM2 with EDM's Heun sampler."""

    name = "edm2"
    summary = "EDM2's imported networks, Heun sampler, guidance by a second network (Karras 2024)"
    config_type = EDM2Config
    presets: ClassVar[Mapping[str, Preset]] = {}

    @staticmethod
    def network(config: Any, data: DataSpec) -> nn.Module:
        """`EDM2Precond` for square images."""
        net: EDM2Net = config.net
        if not data.is_image or data.shape[1] != data.shape[2]:
            raise ValueError(f"edm2 models square images (C, H, H), not {data.shape}")
        unet = UNet(
            resolution=data.shape[1],
            image_channels=data.shape[0],
            num_classes=data.num_classes if net.conditional else 0,
            **net.model_dump(exclude={"conditional"}),
        )
        return EDM2Precond(unet, sigma_data=config.sigma_data)

    def denoised(
        self, config: EDM2Config, net: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor
    ) -> Tensor:
        """The output of the network."""
        return cast(Tensor, net(x, sigma, labels))
