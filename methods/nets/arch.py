"""Table of the differences between the three U-Net architectures.

Sources: Song et al. (2021) for DDPM++ and NCSN++, Dhariwal & Nichol (2021) for ADM. All three have
the form and the parameter names of Karras et al. (2022, EDM).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from methods.nets.init import Init

ArchName = Literal["ddpmpp", "ncsnpp", "adm"]


@dataclass(frozen=True)
class Arch:
    """The properties in which one architecture differs from the others."""

    fourier: bool
    """Random Fourier features of the noise level; otherwise positional ones."""
    noise_width: int
    """Width of the noise embedding, as a multiple of `channels`."""
    label_last: bool
    """Labels and guidance are added after both mapping layers; otherwise before them."""
    wide_first: bool
    """The first convolution has `channel_mult[0]` times the width."""
    head_in_decoder: bool
    """The head is the decoder's `<size>_aux_norm/conv`; otherwise `out_norm/conv`."""
    residual_encoder: bool
    """Every level of the encoder also gets the downsampled input (`aux_residual`)."""
    resample_filter: tuple[int, ...]
    scale_shift: bool
    """The embedding scales and shifts after norm1; otherwise it shifts before it."""
    project_resampled: bool
    """The skip of a resampling block is projected even if the channels are equal."""
    skip_scale: float
    eps: float
    """Epsilon of every GroupNorm."""
    channels_per_head: int | None
    """Width of an attention head; None is one head."""
    attend_all_decoder: bool
    """All decoder blocks at an attention resolution attend; otherwise only the last of a level."""
    init: Init


_DDPMPP = Arch(
    fourier=False,
    noise_width=1,
    label_last=False,
    wide_first=False,
    head_in_decoder=True,
    residual_encoder=False,
    resample_filter=(1, 1),
    scale_shift=False,
    project_resampled=True,
    skip_scale=math.sqrt(0.5),
    eps=1e-6,
    channels_per_head=None,
    attend_all_decoder=False,
    init=Init("xavier", gain=1.0, qkv=math.sqrt(0.2), final=1e-5),
)
_NCSNPP = replace(
    _DDPMPP, fourier=True, noise_width=2, residual_encoder=True, resample_filter=(1, 3, 3, 1)
)
_ADM = Arch(
    fourier=False,
    noise_width=1,
    label_last=True,
    wide_first=True,
    head_in_decoder=False,
    residual_encoder=False,
    resample_filter=(1, 1),
    scale_shift=True,
    project_resampled=False,
    skip_scale=1.0,
    eps=1e-5,
    channels_per_head=64,
    attend_all_decoder=True,
    init=Init("kaiming", gain=math.sqrt(1 / 3), qkv=math.sqrt(1 / 3), final=0.0),
)

ARCHS: Mapping[ArchName, Arch] = {"ddpmpp": _DDPMPP, "ncsnpp": _NCSNPP, "adm": _ADM}
