"""CLIP's image tower ViT-L/14 at 336 pixels, the features of CMMD, from a local weights file.

Radford et al. (2021), CLIP; Jayasumana et al. (2024), CMMD. The published file is a TorchScript
archive, of which only the tensors are read (`read_torchscript`).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.extractors.images import ChunkedExtractor, bicubic_resize, normalised
from metrics.extractors.tensors import Weights, read_tensors, weights_digest
from metrics.extractors.vit import HEAD, Block, VisionTransformer, quick_gelu

SIDE = 336
SIZE = (1024, 24, 768)
"""Width, number of blocks, and dimensions of the projection."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PREPROCESSING = (
    f"bicubic antialias {SIDE}, unclipped, CLIP normalisation; layer norm 1e-5; "
    "projection of unit length, float32"
)
PREFIX = "visual."


class ClipExtractor(ChunkedExtractor):
    """Image embeddings (B, 768) of unit length of CLIP ViT-L/14 at 336 pixels, in float32.

    Images are resized by antialiased bicubic interpolation, as in CMMD. The published weights are
    float16 and converted to float32.

    ValueError unless the file `weights` holds this network, as OpenAI's TorchScript archive or as a
    plain state dict with the same tensors, with or without the text tower.
    """

    name = "clip"
    cpu_chunk = 2
    gpu_chunk = 32

    def __init__(self, weights: Path, *, device: str | torch.device = "cpu") -> None:
        net = read_clip(Weights(read_tensors(weights, PREFIX), weights))
        assert net.projection is not None
        size = (net.width, len(net.blocks), net.projection.shape[1])
        if size != SIZE or net.side != SIDE:
            raise ValueError(
                f"{weights} does not hold the weights of ViT-L/14 at {SIDE} pixels (width, "
                f"blocks, projection {SIZE}): it is {size} at {net.side} pixels"
            )
        self.dim = net.projection.shape[1]
        self.hash = weights_digest(PREPROCESSING, net.tensors())
        self.device = torch.device(device)
        self._net = net.to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        x = preprocess(images.to(self.device).float(), self._net.side)
        return F.normalize(self._net(x), dim=1)


def preprocess(images: Tensor, side: int = SIDE) -> Tensor:
    """Float (B, 3, H, W) in [0, 255] -> (B, 3, side, side), normalised as for CLIP's training."""
    return normalised(bicubic_resize(images, side), MEAN, STD)


def read_clip(weights: Weights) -> VisionTransformer:
    """An image tower of any size from weights under OpenAI's names; ValueError on other names."""
    shape = weights.shape(f"{PREFIX}conv1.weight")
    if len(shape) != 4 or shape[0] % HEAD:
        raise weights.refusal(f"{PREFIX}conv1.weight is of shape {shape}")
    width, patch = shape[0], shape[-1]

    def pair(name: str, *sizes: int) -> tuple[Tensor, Tensor]:
        return (
            weights.take(f"{PREFIX}{name}.weight", *sizes),
            weights.take(f"{PREFIX}{name}.bias", sizes[0]),
        )

    def block(at: str) -> Block:
        attention = f"{PREFIX}{at}.attn.in_proj_"
        hidden = weights.shape(f"{PREFIX}{at}.mlp.c_fc.weight")[0]
        return Block(
            norm1=pair(f"{at}.ln_1", width),
            qkv=(
                weights.take(f"{attention}weight", 3 * width, width),
                weights.take(f"{attention}bias", 3 * width),
            ),
            out=pair(f"{at}.attn.out_proj", width, width),
            scale1=None,
            norm2=pair(f"{at}.ln_2", width),
            up=pair(f"{at}.mlp.c_fc", hidden, width),
            down=pair(f"{at}.mlp.c_proj", width, hidden),
            scale2=None,
        )

    blocks: list[Block] = []
    while f"{PREFIX}transformer.resblocks.{len(blocks)}.ln_1.weight" in weights:
        blocks.append(block(f"transformer.resblocks.{len(blocks)}"))
    positions = weights.shape(f"{PREFIX}positional_embedding")[0]
    projected = weights.shape(f"{PREFIX}proj")[-1]
    grid = math.isqrt(max(positions - 1, 0))
    if not blocks or grid < 1 or grid * grid != positions - 1:
        raise weights.refusal(f"it has {len(blocks)} blocks and {positions} positions")
    net = VisionTransformer(
        patch=weights.take(f"{PREFIX}conv1.weight", width, 3, patch, patch),
        patch_bias=None,
        token=weights.take(f"{PREFIX}class_embedding", width),
        positions=weights.take(f"{PREFIX}positional_embedding", positions, width),
        pre=pair("ln_pre", width),
        blocks=tuple(blocks),
        post=pair("ln_post", width),
        projection=weights.take(f"{PREFIX}proj", width, projected),
        epsilon=1e-5,
        activation=quick_gelu,
    )
    # The file of the whole model also holds the text tower and a few numbers.
    weights.finish(
        ignored=(
            "transformer.", "token_embedding.", "ln_final.", "positional_embedding",
            "text_projection", "logit_scale", "input_resolution", "context_length", "vocab_size",
        )
    )  # fmt: skip
    return net
