"""One U-Net for three architectures, DDPM++, NCSN++ and ADM, with the published parameter names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nets.arch import ARCHS, ArchName
from methods.nets.blocks import UNetBlock, group_norm
from methods.nets.embeddings import FourierEmbedding, PositionalEmbedding
from methods.nets.guidance_term import guidance_term
from methods.nets.resample import ResampledConv


class UNet(nn.Module):
    """U-Net F(x; c_noise, labels, guidance) with as many output as input channels.

    `resolution` is the side of the square images. It is halved once per entry of `channel_mult`
    after the first. `guidance_dim` > 0 adds `map_w_embed`, `augment_dim` > 0 adds `map_augment`
    (DDPM++ and NCSN++ only). With `num_classes` 0 there is no `map_label`, and labels are ignored.
    Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        arch: ArchName,
        *,
        resolution: int,
        image_channels: int,
        num_classes: int,
        channels: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        dropout: float = 0.0,
        fourier_scale: float = 0.02,
        guidance_dim: int = 0,
        augment_dim: int = 0,
    ) -> None:
        super().__init__()
        halvings = len(channel_mult) - 1
        if resolution % 2**halvings:
            raise ValueError(
                f"channel_mult {tuple(channel_mult)} halves the image {halvings} times, "
                f"which {resolution} pixels do not allow"
            )
        self.arch = ARCHS[arch]
        if augment_dim and self.arch.label_last:
            raise ValueError(f"{arch} takes no augmentation labels: set augment_dim to 0")
        self.label_gain = 1.0 if self.arch.label_last else math.sqrt(num_classes)
        self._build_mapping(channels, num_classes, fourier_scale, guidance_dim, augment_dim)

        block = partial(UNetBlock, self.arch, emb_width=4 * channels, dropout=dropout)
        sizes = [resolution >> level for level in range(halvings + 1)]
        attends = [size in attn_resolutions for size in sizes]
        widths = [channels * mult for mult in channel_mult]

        first = widths[0] if self.arch.wide_first else channels
        self.enc = nn.ModuleDict()
        skips = self._build_encoder(
            block, sizes, widths, attends, num_blocks, image_channels, first
        )
        self.dec = nn.ModuleDict()
        self._build_decoder(block, sizes, widths, attends, num_blocks, skips)
        self._build_head(f"{resolution}x{resolution}", widths[0], image_channels)

    def _build_mapping(
        self,
        channels: int,
        num_classes: int,
        fourier_scale: float,
        guidance_dim: int,
        augment_dim: int,
    ) -> None:
        arch, init = self.arch, self.arch.init
        noise_width, emb_width = channels * arch.noise_width, 4 * channels
        joins = emb_width if arch.label_last else noise_width
        self.map_noise: nn.Module
        if arch.fourier:
            self.map_noise = FourierEmbedding(noise_width, fourier_scale)
        else:
            # In DDPM++ the frequencies include the end of the range, and sines come first.
            ddpm = not arch.label_last
            self.map_noise = PositionalEmbedding(noise_width, endpoint=ddpm, sin_first=ddpm)
        self.map_label: nn.Linear | None = None
        if num_classes:
            self.map_label = init.label(nn.Linear(num_classes, joins, bias=not arch.label_last))
        self.map_augment: nn.Linear | None = None
        if augment_dim:
            self.map_augment = init(nn.Linear(augment_dim, joins, bias=False))
        self.map_w_embed: nn.Linear | None = None
        if guidance_dim:
            self.map_w_embed = init(nn.Linear(guidance_dim, joins))
        self.map_layer0 = init(nn.Linear(noise_width, emb_width))
        self.map_layer1 = init(nn.Linear(emb_width, emb_width))

    def _build_encoder(
        self,
        block: partial[UNetBlock],
        sizes: Sequence[int],
        widths: Sequence[int],
        attends: Sequence[bool],
        num_blocks: int,
        image_channels: int,
        first: int,
    ) -> list[int]:
        """Fill `enc` and return the widths of the skips in order of creation."""
        arch = self.arch
        width, aux_width = first, image_channels
        skips = []
        for level, size in enumerate(sizes):
            name = f"{size}x{size}"
            if level == 0:
                conv = nn.Conv2d(image_channels, width, 3, padding=1)
                self.enc[f"{name}_conv"] = arch.init(conv)
            else:
                self.enc[f"{name}_down"] = block(width, width, resample="down")
                if arch.residual_encoder:
                    aux = ResampledConv(
                        aux_width, width, 3, arch.resample_filter, "down", filter_last=True
                    )
                    self.enc[f"{name}_aux_residual"] = arch.init(aux)
                    aux_width = width
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = block(width, widths[level], attention=attends[level])
                width = widths[level]
                skips.append(width)
        return skips

    def _build_decoder(
        self,
        block: partial[UNetBlock],
        sizes: Sequence[int],
        widths: Sequence[int],
        attends: Sequence[bool],
        num_blocks: int,
        skips: Sequence[int],
    ) -> None:
        """Fill `dec`. Each of its blocks takes the most recent unused skip."""
        unused = list(skips)
        width = widths[-1]
        for level in reversed(range(len(sizes))):
            name = f"{sizes[level]}x{sizes[level]}"
            if level == len(sizes) - 1:
                self.dec[f"{name}_in0"] = block(width, width, attention=True)
                self.dec[f"{name}_in1"] = block(width, width)
            else:
                self.dec[f"{name}_up"] = block(width, width, resample="up")
            for i in range(num_blocks + 1):
                last = i == num_blocks
                self.dec[f"{name}_block{i}"] = block(
                    width + unused.pop(),
                    widths[level],
                    attention=attends[level] and (last or self.arch.attend_all_decoder),
                )
                width = widths[level]

    def _build_head(self, name: str, width: int, image_channels: int) -> None:
        arch = self.arch
        norm = group_norm(width, arch.eps)
        conv = arch.init(nn.Conv2d(width, image_channels, 3, padding=1), arch.init.final)
        self._head_name = name
        if arch.head_in_decoder:
            self.dec[f"{name}_aux_norm"], self.dec[f"{name}_aux_conv"] = norm, conv
        else:
            self.out_norm, self.out_conv = norm, conv

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor,
        w_embed: Tensor | None = None,
        *,
        dropout: torch.Generator | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Output (B, C, H, W) for scaled images `x` (B, C, H, W).

        `c_noise` (B,) is ln(sigma) / 4, `labels` (B, K) one-hot with zeros for null, `w_embed`
        (B, guidance_dim) the embedding of the guidance weight, `augment` (B, augment_dim), where
        None means zeros. Masks are drawn from `dropout`; None: no dropout. Raises ValueError if
        the network has no layer for `w_embed` or `augment`, or if it needs `w_embed`.
        """
        emb = self._map(c_noise, labels, w_embed, augment)
        x, skips = self._encode(x, emb, dropout)
        for name, layer in self.dec.items():
            if not isinstance(layer, UNetBlock):
                continue
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, emb, dropout)
        norm, conv = self._head()
        out: Tensor = conv(F.silu(norm(x)))
        return out

    def _map(
        self, c_noise: Tensor, labels: Tensor, w_embed: Tensor | None, augment: Tensor | None
    ) -> Tensor:
        joined = guidance_term(self.map_w_embed, w_embed)
        if self.map_label is not None:
            joined = self.map_label(labels * self.label_gain) + joined
        if augment is not None:
            if self.map_augment is None:
                raise ValueError("this network takes no augmentation labels")
            joined = joined + self.map_augment(augment)
        emb: Tensor = self.map_noise(c_noise)
        if self.arch.label_last:
            return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))) + joined)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb + joined))))

    def _encode(
        self, x: Tensor, emb: Tensor, dropout: torch.Generator | None
    ) -> tuple[Tensor, list[Tensor]]:
        aux = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("_aux_residual"):
                # The residual branch replaces the skip of the block it is added to.
                x = aux = (x + layer(aux)) * self.arch.skip_scale
                skips[-1] = x
                continue
            x = layer(x, emb, dropout) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        return x, skips

    def _head(self) -> tuple[nn.Module, nn.Module]:
        if self.arch.head_in_decoder:
            name = self._head_name
            return self.dec[f"{name}_aux_norm"], self.dec[f"{name}_aux_conv"]
        return self.out_norm, self.out_conv
