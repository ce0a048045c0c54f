"""DINOv2's class token, the features of FD-DINOv2, from a local weights file.

Oquab et al. (2024), DINOv2; Stein et al. (2023), "Exposing flaws of generative model evaluation
metrics", compare generators in the features of ViT-L/14. The network is implemented here, with the
published names of weights: no code comes from a hub or with the weights.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.extractors.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChunkedExtractor,
    bicubic_resize,
    normalised,
)
from metrics.extractors.tensors import Weights, read_tensors, weights_digest
from metrics.extractors.vit import HEAD, Block, VisionTransformer, swiglu

SIDE = 224
SIZES = {
    "dinov2": (1024, 24),
    "dinov2-vit-s-14": (384, 12),
    "dinov2-vit-b-14": (768, 12),
    "dinov2-vit-g-14": (1536, 40),
}
"""Width and number of blocks by the extractor's name."""
PREPROCESSING = (
    f"bicubic antialias {SIDE}, unclipped, ImageNet normalisation; positions bicubic + 0.1; "
    "layer norm 1e-6; class token, float32"
)


class Dinov2Extractor(ChunkedExtractor):
    """Class token (B, D) after the last normalisation: D = 1024 for ViT-L/14, the default.

    Images are resized to 224 by antialiased bicubic interpolation, as usual for FD-DINOv2;
    torch-fidelity resizes differently, so its values do not compare. `name` is one of `SIZES`;
    each is a different extractor.

    ValueError if the file `weights` does not hold the network of this name.
    """

    def __init__(
        self, weights: Path, *, name: str = "dinov2", device: str | torch.device = "cpu"
    ) -> None:
        if name not in SIZES:
            raise ValueError(f"name is one of {', '.join(SIZES)}, got {name!r}")
        net = read_dinov2(Weights(read_tensors(weights), weights))
        if (net.width, len(net.blocks)) != SIZES[name]:
            raise ValueError(
                f"{weights} does not hold the weights of {name}, which is {SIZES[name][0]} wide "
                f"with {SIZES[name][1]} blocks: it is {net.width} wide with {len(net.blocks)}"
            )
        self.name = name
        self.dim = net.width
        self.hash = weights_digest(PREPROCESSING, net.tensors())
        self.device = torch.device(device)
        self._net = net.to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        return self._net(preprocess(images.to(self.device).float()))


def preprocess(images: Tensor) -> Tensor:
    """Float (B, 3, H, W) in [0, 255] -> (B, 3, 224, 224), normalised as for ImageNet."""
    return normalised(bicubic_resize(images, SIDE), IMAGENET_MEAN, IMAGENET_STD)


def read_dinov2(weights: Weights) -> VisionTransformer:
    """A network of any size from weights under their published names; ValueError on other names.

    Its positions are resized to images of 224 x 224 pixels.
    """
    width, _, patch, _ = _four(weights, "patch_embed.proj.weight")
    if width % HEAD or SIDE % patch:
        raise weights.refusal(f"it has width {width} and patches of {patch} pixels")
    trained = weights.shape("pos_embed")
    positions = weights.take("pos_embed", 1, trained[1] if len(trained) == 3 else 1, width)[0]
    gated = "blocks.0.mlp.w12.weight" in weights
    blocks: list[Block] = []
    while f"blocks.{len(blocks)}.norm1.weight" in weights:
        blocks.append(_block(weights, f"blocks.{len(blocks)}.", width, gated))
    if not blocks:
        raise weights.refusal("it has no blocks")
    net = VisionTransformer(
        patch=weights.take("patch_embed.proj.weight", width, 3, patch, patch),
        patch_bias=weights.take("patch_embed.proj.bias", width),
        token=weights.take("cls_token", 1, 1, width).flatten(),
        positions=resized_positions(positions, SIDE // patch, weights),
        pre=None,
        blocks=tuple(blocks),
        post=(weights.take("norm.weight", width), weights.take("norm.bias", width)),
        projection=None,
        epsilon=1e-6,
        activation=swiglu if gated else F.gelu,
    )
    weights.finish(ignored=("mask_token",))
    return net


def resized_positions(positions: Tensor, grid: int, weights: Weights) -> Tensor:
    """(1 + m^2, D) -> (1 + grid^2, D), as the published network does with smaller images.

    The grid is interpolated by a scale of (grid + 0.1) / m. The published code adds the 0.1 against
    rounding; it shifts every sampled position a little, so it is part of the network.
    """
    m = math.isqrt(len(positions) - 1)
    if m * m != len(positions) - 1 or m == 0:
        raise weights.refusal(f"{len(positions)} positions are not a square plus a class token")
    if m == grid:
        return positions
    square = positions[1:].T.reshape(1, -1, m, m)
    scale = (grid + 0.1) / m
    resized = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:1], resized.flatten(2)[0].T])


def _four(weights: Weights, name: str) -> tuple[int, int, int, int]:
    shape = weights.shape(name)
    if len(shape) != 4:
        raise weights.refusal(f"{name} has {len(shape)} dimensions, not 4")
    return shape[0], shape[1], shape[2], shape[3]


def _block(weights: Weights, at: str, width: int, gated: bool) -> Block:
    def pair(name: str, *shape: int) -> tuple[Tensor, Tensor]:
        return weights.take(f"{at}{name}.weight", *shape), weights.take(
            f"{at}{name}.bias", shape[0]
        )

    up, down = ("mlp.w12", "mlp.w3") if gated else ("mlp.fc1", "mlp.fc2")
    hidden = weights.shape(f"{at}{up}.weight")[0]
    return Block(
        norm1=pair("norm1", width),
        qkv=pair("attn.qkv", 3 * width, width),
        out=pair("attn.proj", width, width),
        scale1=weights.take(f"{at}ls1.gamma", width),
        norm2=pair("norm2", width),
        up=pair(up, hidden, width),
        down=pair(down, width, hidden // 2 if gated else hidden),
        scale2=weights.take(f"{at}ls2.gamma", width),
    )
