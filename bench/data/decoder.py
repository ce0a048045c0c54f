"""Decoders: what makes images of latents. One place loads them, the same for runs and data sets."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bench.system.bounds import Number, read_json
from bench.system.errors import UserError, told, unknown
from bench.system.files import atomic_path, make_folder, sha256
from bench.system.offline import no_network

FOLDER = "decoder"
"""The folder of a decoder's files in that of a run or data set."""
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
AT_ONCE = 8
"""Latents decoded at once, to bound the memory for large images."""

Decoder = Callable[[Tensor], Tensor]
"""Latents float32 (B, c, h, w) => images float32 (B, C, H, W) in [-1, 1]."""
Width = Annotated[int, Field(ge=1, le=1 << 13)]


@dataclass(frozen=True)
class Scaling:
    """Latents are `scale` times those of the autoencoder plus `shift`: one value, or per channel.

    `unit`: the autoencoder's images are in [0, 1] instead of [-1, 1], and are cut to whole levels
    of 255 instead of rounded.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...] = (0.0,)
    unit: bool = False


def _whitening(mean: tuple[float, ...], std: tuple[float, ...], to: float) -> Scaling:
    """Latents of mean 0 and standard deviation `to`."""
    scale = tuple(to / s for s in std)
    return Scaling(scale, tuple(-m * s for m, s in zip(mean, scale, strict=True)))


def _edm2() -> Scaling:
    white = _whitening((5.81, 3.25, 0.12, -2.15), (4.17, 4.62, 3.71, 3.28), 0.5)
    return Scaling(white.scale, white.shift, unit=True)


IDENTITY, OWN = "identity", "vae"
SCALINGS: Mapping[str, Scaling] = {"sd-vae": Scaling((0.18215,)), "edm2-vae": _edm2()}
"""Published uses of Stable Diffusion's autoencoder: by DiT and SiT, and by EDM2 (Karras et al.
2024, whose latents are whitened per channel)."""
DECODERS = (IDENTITY, OWN, *SCALINGS)
"""Names of decoders: `vae` scales as the folder says, `identity` takes the latents as images."""


class AutoencoderConfig(BaseModel):
    """The part of a folder's config.json that decides shapes and scaling, with bounded sizes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["AutoencoderKL"] = Field(alias="_class_name")
    block_out_channels: tuple[Width, ...] = Field((64,), min_length=1, max_length=8)
    layers_per_block: int = Field(1, ge=1, le=64)
    latent_channels: Width = 4
    out_channels: Literal[1, 3] = 3
    scaling_factor: Number = 0.18215
    shift_factor: Number | None = None
    latents_mean: tuple[Number, ...] | None = None
    latents_std: tuple[Number, ...] | None = None

    def scaling(self) -> Scaling:
        """Latents as diffusers' pipelines scale them."""
        if self.latents_mean and self.latents_std:
            return _whitening(self.latents_mean, self.latents_std, self.scaling_factor)
        return Scaling((self.scaling_factor,), (-(self.shift_factor or 0) * self.scaling_factor,))


@dataclass(frozen=True)
class DecoderSource:
    """A decoder by its name, one of `DECODERS`, and the folder of its files.

    The folder is one that diffusers' `AutoencoderKL` saves; `identity` has none.
    """

    name: str
    folder: Path | None = None

    @property
    def is_there(self) -> bool:
        """Whether its files are there, if it needs any."""
        return self.name == IDENTITY or (
            self.folder is not None and (self.folder / CONFIG).is_file()
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its name and the content of its files."""
        parts = (self.name, *(sha256(path) for path in self._files()))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def latent_channels(self) -> int | None:
        """Channels of the latents; None if it decodes any."""
        return None if self.name == IDENTITY else self._config().latent_channels

    def scaling(self) -> Scaling:
        """How latents are those of its autoencoder."""
        if self.name == IDENTITY:
            return Scaling((1.0,))
        return SCALINGS[self.name] if self.name in SCALINGS else self._config().scaling()

    def image_shape(self, latents: tuple[int, ...]) -> tuple[int, int, int]:
        """(C, H, W) of the images of latents (c, h, w); UserError if it does not decode them."""
        channels, height, width = latents
        if self.name == IDENTITY:
            return channels, height, width
        config = self._config()
        if channels != config.latent_channels:
            raise UserError(
                f"The decoder in {self.folder} takes latents of {config.latent_channels} channels, "
                f"and these have {channels}: name another folder with --decoder."
            )
        by = 2 ** (len(config.block_out_channels) - 1)
        return config.out_channels, height * by, width * by

    def copy(self, folder: Path) -> None:
        """Copy its files to `folder / FOLDER`, the settings last."""
        if self.name == IDENTITY:
            return
        self._config()
        make_folder(folder / FOLDER)
        for path in reversed(self._files()):
            with atomic_path(folder / FOLDER / path.name) as temporary:
                shutil.copyfile(path, temporary)

    def load(self, device: torch.device) -> Decoder:
        """The decoder on `device`; UserError for a folder that is damaged, and without diffusers.

        It reads only safetensors, and nothing from the network.
        """
        if self.name == IDENTITY:
            return lambda latents: latents.to(torch.float32)
        self._config()
        try:
            with no_network():
                from diffusers import AutoencoderKL

                vae: Any = AutoencoderKL.from_pretrained(
                    self.folder, use_safetensors=True, local_files_only=True,
                    low_cpu_mem_usage=False,
                )  # fmt: skip
        except ImportError:
            raise UserError(
                f"The decoder {self.name!r} needs diffusers: pip install "
                "'guidance-bench[diffusers]'."
            ) from None
        except Exception as error:  # the library raises errors of many kinds for damaged files
            raise UserError(f"Cannot load the decoder in {self.folder}: {told(error)}.") from None
        vae.encoder = None
        return Autoencoder(vae, self.scaling()).to(device).eval().requires_grad_(False)

    def _files(self) -> list[Path]:
        if self.folder is None:
            return []
        for path in (self.folder / CONFIG, self.folder / WEIGHTS):
            if not path.is_file():
                raise UserError(
                    f"{self.folder} has no {path.name}: a decoder is a folder that diffusers' "
                    f"AutoencoderKL saves, with {CONFIG} and {WEIGHTS}.",
                    code=2,
                )
        return [self.folder / CONFIG, self.folder / WEIGHTS]

    def _config(self) -> AutoencoderConfig:
        return read_json(
            self._files()[0], AutoencoderConfig.model_validate_json,
            "the settings of an AutoencoderKL of diffusers", "name another folder with --decoder",
        )  # fmt: skip


class Autoencoder(nn.Module):
    """The decoder of an `AutoencoderKL`, for latents in a `Scaling`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, vae: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.vae, self.unit = vae, scaling.unit
        self.register_buffer("scale", torch.tensor(scaling.scale).reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(scaling.shift).reshape(1, -1, 1, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """Images float32 (B, C, H, W) in [-1, 1] of latents (B, c, h, w)."""
        raw = (latents.to(torch.float32) - self.shift) / self.scale
        vae: Any = self.vae
        parts = [raw[i : i + AT_ONCE] for i in range(0, len(raw), AT_ONCE)]
        images = torch.cat([vae.decode(part).sample for part in parts])
        if self.unit:
            return (images * 255).clamp(0, 255).floor() / 127.5 - 1
        return images.clamp(-1, 1)


def decoder_source(name: str, folder: Path | None) -> DecoderSource:
    """The decoder of this name in `folder`; UserError for an unknown name or another folder."""
    if name not in DECODERS:
        raise unknown("decoder", name, DECODERS)
    if (name == IDENTITY) != (folder is None):
        needs = "has no folder" if name == IDENTITY else "needs its folder"
        raise UserError(f"The decoder {name!r} {needs}: see --decoder.", code=2)
    return DecoderSource(name, folder)
