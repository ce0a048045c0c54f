"""The settings of a network, inferred from names and shapes of its parameters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from bench.system.errors import UserError, counted, explain
from bench.training.checkpoint import Shapes
from methods.nets.arch import ARCHS, ArchName
from methods.nets.config import UNetConfig
from methods.settings import Settings

TENSORS = 10
"""Least number in a residual block."""


NetT = TypeVar("NetT", bound=Settings, covariant=True)


@dataclass(frozen=True)
class Architecture(Generic[NetT]):
    """A network's settings, and the sizes of its images and embeddings."""

    net: NetT
    about: str
    """Its kind and size in words."""
    resolution: int
    image_channels: int
    num_classes: int
    """0 for an unconditional network."""
    guidance_dim: int = 0
    """0 without a guidance embedding."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        return (self.image_channels, self.resolution, self.resolution)


def infer(shapes: Shapes, prefix: str) -> Architecture[UNetConfig]:
    """The architecture of the network whose parameters start with `prefix`.

    Reads only a few parameters, and raises UserError if they are missing: the caller checks the
    others.
    """
    own = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
    kind = f"none of the U-Nets {', '.join(ARCHS)}"
    sizes = level_sizes(own, prefix, "conv1", kind)
    top = f"{sizes[0]}x{sizes[0]}"
    first = shape_of(own, f"enc.{top}_conv.weight", 4, prefix, kind)
    mapping = shape_of(own, "map_layer0.weight", 2, prefix, kind)
    channels = mapping[0] // 4
    widths = [shape_of(own, f"enc.{n}x{n}_block0.conv1.weight", 4, prefix, kind)[0] for n in sizes]
    if channels == 0 or any(width % channels for width in widths):
        raise UserError(
            f"The levels of the network {_where(prefix)} are {widths} wide, which are no multiples "
            f"of its {channels} channels."
        )
    blocks = sum(f"enc.{top}_block{i}.conv1.weight" in own for i in range(len(own)))
    if len(sizes) * blocks * TENSORS > len(own):  # before that many blocks are built
        raise UserError(
            f"The network {_where(prefix)} has {blocks} blocks at its first level, and only "
            f"{len(own)} tensors in all."
        )
    with invalid_settings(prefix):
        net = UNetConfig(
            arch=_arch(own),
            channels=channels,
            channel_mult=tuple(width // channels for width in widths),
            num_blocks=blocks,
            attn_resolutions=tuple(n for n in sizes if f"enc.{n}x{n}_block0.qkv.weight" in own),
            augment_dim=_inputs(own, "map_augment"),
            conditional="map_label.weight" in own,
        )
    return Architecture(
        net=net,
        about=f"{net.arch}, {net.channels} channels x {list(net.channel_mult)}, "
        f"{counted(net.num_blocks, 'block')}, attention at {list(net.attn_resolutions)}",
        resolution=sizes[0],
        image_channels=first[1],
        num_classes=_inputs(own, "map_label"),
        guidance_dim=_inputs(own, "map_w_embed"),
    )


def _where(prefix: str) -> str:
    return f"under {prefix!r}" if prefix else "in the file"


@contextmanager
def invalid_settings(prefix: str) -> Iterator[None]:
    """UserError for settings of the network under `prefix` that are not valid."""
    try:
        yield
    except ValidationError as error:
        raise UserError(
            f"The network {_where(prefix)} has invalid settings: {explain(error)}."
        ) from None


def shape_of(own: Shapes, name: str, dims: int, prefix: str, kind: str) -> tuple[int, ...]:
    """The shape of a parameter; UserError if it is missing, and so the network is `kind`."""
    found = own.get(name)
    if found is None or len(found) != dims:
        why = f"it has no {name} with {dims} dimensions"
        raise UserError(f"The network {_where(prefix)} is {kind}: {why}.")
    return found


def _inputs(own: Shapes, layer: str) -> int:
    found = own.get(f"{layer}.weight", ())
    return found[1] if len(found) == 2 else 0


def level_sizes(own: Shapes, prefix: str, layer: str, kind: str) -> list[int]:
    """Resolutions of the levels, from the image's down, halved at each level.

    `layer` is one of the first block of every level. UserError if there are none.
    """
    pattern = re.compile(rf"enc\.([1-9][0-9]{{0,4}})x\1_block0\.{layer}\.weight")
    found = sorted({int(m[1]) for m in map(pattern.fullmatch, own) if m}, reverse=True)
    if not found or found != [found[0] >> level for level in range(len(found))]:
        why = "its encoder has no levels that halve the image"
        raise UserError(f"The network {_where(prefix)} is {kind}: {why}.")
    return found


def _arch(own: Shapes) -> ArchName:
    if "out_conv.weight" in own:
        return "adm"
    return "ncsnpp" if "map_noise.freqs" in own else "ddpmpp"


def cross_check(found: Architecture[UNetConfig], arguments: Mapping[str, Any], who: str) -> None:
    """UserError if the arguments of a U-Net's constructor contradict its parameters.

    `arguments` have the names of the published networks; unknown ones are ignored.
    """
    net, arch = found.net, ARCHS[found.net.arch]
    expected = {
        "img_resolution": found.resolution,
        "img_channels": found.image_channels,
        "in_channels": found.image_channels,
        "out_channels": found.image_channels,
        "label_dim": found.num_classes,
        "model_channels": net.channels,
        "channel_mult": list(net.channel_mult),
        "num_blocks": net.num_blocks,
        "augment_dim": net.augment_dim,
        "model_type": "DhariwalUNet" if net.arch == "adm" else "SongUNet",
        "embedding_type": "fourier" if arch.fourier else "positional",
        "encoder_type": "residual" if arch.residual_encoder else "standard",
        "decoder_type": "standard",
        "channel_mult_noise": arch.noise_width,
        "resample_filter": list(arch.resample_filter),
    }
    sizes = {found.resolution >> level for level in range(len(net.channel_mult))}
    refuse_contradictions(expected, net.attn_resolutions, sizes, arguments, who)


def refuse_contradictions(
    expected: Mapping[str, Any],
    attn_resolutions: Collection[int],
    sizes: Collection[int],
    arguments: Mapping[str, Any],
    who: str,
) -> None:
    """UserError for arguments of a constructor that differ from what the parameters show.

    `attn_resolutions` are those of attention among the `sizes` of the levels.
    """
    wrong = [
        f"{key} is {_plain(arguments[key])!r} there, {value!r} by the parameters"
        for key, value in expected.items()
        if key in arguments and _plain(arguments[key]) != value
    ]
    if "attn_resolutions" in arguments:
        given = sorted(set(sizes).intersection(_ints(arguments["attn_resolutions"])))
        shown = sorted(set(sizes).intersection(attn_resolutions))
        if given != shown:
            wrong.append(f"attn_resolutions are {given} there, {shown} by the parameters")
    if wrong:
        raise UserError(f"{who} in the file contradicts its own parameters: {'; '.join(wrong)}.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _ints(value: Any) -> Sequence[int]:
    return value if isinstance(value, (list, tuple)) else [value]
