"""The settings of EDM2's U-Nets and of the transformers of DiT and SiT, from their parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.system.errors import UserError, counted
from bench.training.checkpoint import Shapes
from bench.training.importing.architecture import (
    Architecture,
    invalid_settings,
    level_sizes,
    refuse_contradictions,
    shape_of,
)
from methods.dit import DiTNet
from methods.edm2 import EDM2Net

EDM2_MARK = "unet.emb_noise.weight"
TRANSFORMER_MARK = "x_embedder.proj.weight"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Attention heads of the published transformers by their width."""
EDM2_TENSORS = 5
"""Least number in a block."""
EDM2_FIXED: Mapping[str, Any] = {
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
}
"""Arguments of EDM2's networks that no published one varies."""


def infer_edm2(
    shapes: Shapes, arguments: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
) -> Architecture[EDM2Net]:
    """The architecture of an EDM2 network under `unet.`; UserError if parameters are missing.

    `arguments` are those in the file by module, and `given` the user's, for what parameters do not
    show: the channels per attention head.
    """
    own = {k.removeprefix("unet."): v for k, v in shapes.items() if k.startswith("unet.")}
    kind = "no U-Net of EDM2"
    sizes = level_sizes(own, "unet.", "conv_res1", kind)
    top = f"{sizes[0]}x{sizes[0]}"
    first = shape_of(own, f"enc.{top}_conv.weight", 4, "unet.", kind)
    widths = [
        shape_of(own, f"enc.{n}x{n}_block0.conv_res1.weight", 4, "unet.", kind)[0] for n in sizes
    ]
    even = widths[0] > 0 and not any(width % widths[0] for width in widths)
    channels = widths[0] if even else 1
    blocks = sum(f"enc.{top}_block{i}.conv_res1.weight" in own for i in range(len(own)))
    if len(sizes) * blocks * EDM2_TENSORS > len(own):  # before that many blocks are built
        raise UserError(
            f"The network has {blocks} blocks at its first level, and only {len(own)} tensors."
        )
    label = own.get("emb_label.weight", ())
    classes = label[1] if len(label) == 2 else 0
    inits = {**arguments.get("unet", {}), **arguments.get("", {})}
    per_head = given.get("net.channels_per_head", inits.get("channels_per_head", 64))
    with invalid_settings("unet."):
        net = EDM2Net(
            channels=channels,
            channel_mult=tuple(width // channels for width in widths),
            num_blocks=blocks,
            attn_resolutions=tuple(
                n for n in sizes if f"enc.{n}x{n}_block0.attn_qkv.weight" in own
            ),
            channels_per_head=per_head,
            conditional=bool(classes),
        )
    expected = {
        "img_resolution": sizes[0],
        "img_channels": first[1] - 1,
        "label_dim": classes,
        "num_blocks": blocks,
        **EDM2_FIXED,
    }
    refuse_contradictions(expected, net.attn_resolutions, sizes, inits, "Precond")
    return Architecture(
        net=net,
        about=f"EDM2, {channels} channels x {list(net.channel_mult)}, "
        f"{counted(blocks, 'block')}, attention at {list(net.attn_resolutions)}, "
        f"{per_head} channels per head",
        resolution=sizes[0],
        image_channels=first[1] - 1,
        num_classes=classes,
    )


def infer_transformer(shapes: Shapes, given: Mapping[str, Any]) -> Architecture[DiTNet]:
    """The architecture of a DiT or SiT; UserError if parameters are missing.

    `given` are the user's settings, for what parameters do not show: the number of heads.
    """

    def shape(name: str, dims: int) -> tuple[int, ...]:
        return shape_of(shapes, name, dims, "", "no transformer of DiT or SiT")

    width, channels, patch, _ = shape(TRANSFORMER_MARK, 4)
    tokens, classes = shape("pos_embed", 3)[1], shape("y_embedder.embedding_table.weight", 2)[0] - 1
    outputs = shape("final_layer.linear.weight", 2)[0]
    depth = sum(f"blocks.{i}.attn.qkv.weight" in shapes for i in range(len(shapes)))
    side = math.isqrt(tokens)
    if side**2 != tokens or outputs not in (patch**2 * channels, 2 * patch**2 * channels):
        raise UserError(
            f"The transformer has {tokens} tokens with {outputs} outputs each, which are no square "
            f"image of {channels} channels in patches of {patch}, with or without a variance."
        )
    heads = given.get("net.heads", HEADS.get(width))
    if heads is None:
        raise UserError(
            f"The file does not show the number of attention heads, and no published transformer "
            f"has the width {width}: add --set net.heads=4, for example.",
            code=2,
        )
    with invalid_settings(""):
        net = DiTNet(
            patch=patch,
            width=width,
            depth=depth,
            heads=heads,
            variance=outputs == 2 * patch**2 * channels,
        )
    return Architecture(
        net=net,
        about=f"transformer, {counted(depth, 'block')} of width {width} with "
        f"{counted(heads, 'head')}, patches of {patch}"
        + (", variance not used" if net.variance else ""),
        resolution=side * patch,
        image_channels=channels,
        num_classes=classes,
    )
