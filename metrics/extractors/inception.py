"""The Inception network of the Frechet Inception Distance, from a local weights file."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metrics.base import Extracted, Extractor
from metrics.extractors.images import (
    chunk_size,
    colour,
    exact_arithmetic,
    in_chunks,
    tf1_resize,
)
from metrics.extractors.tensors import not_this_network, state_copy
from metrics.extractors.weights_table import INCEPTION

SIZE = 299
CHUNK = 8

Resize = Literal["tf1", "clean"]


class InceptionExtractor(Extractor):
    """Pool features (B, 2048) and unbiased logits (B, 1008) of Inception-v3 (2015-12-05).

    `resize` "tf1" is the bilinear resize of TensorFlow 1 that FID began with, as torch-fidelity
    emulates it; "clean" is the antialiased bicubic one of Parmar et al. (2022), clipped to the
    range and not rounded. The two are different extractors: their values do not compare. Grey
    images are repeated to three channels.

    ValueError if the file `weights` does not hold this network.
    """

    dim = 2048
    has_logits = True

    def __init__(
        self,
        weights: Path,
        *,
        resize: Resize = "tf1",
        device: str | torch.device = "cpu",
    ) -> None:
        if resize not in ("tf1", "clean"):
            raise ValueError(f"resize is 'tf1' or 'clean', got {resize!r}")
        content = weights.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        library = f"torch-fidelity {version('torch-fidelity')}"
        if resize == "clean":
            library += f" clean-fid {version('clean-fid')}"
        about = f"{sha256} {resize} {library}"
        self.name = "inception" if resize == "tf1" else "inception-clean"
        self.hash = hashlib.sha256(about.encode()).hexdigest()
        self.resize = resize
        self.device = torch.device(device)
        self._net = _network(content, weights).to(self.device)

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        images = colour(samples, self.name)
        with exact_arithmetic():
            features = in_chunks(self._features, images, chunk_size(self.device, CHUNK))
            if not self.has_logits:
                return Extracted(features, None)
            logits = features.to(self.device) @ self._net.fc.weight.T
        return Extracted(features, logits.cpu())

    def _features(self, images: Tensor) -> Tensor:
        if self.resize == "tf1":
            x = tf1_resize(images.to(self.device).float(), SIZE)
        else:
            x = clean_resize(images).to(self.device)
        return self._extract((x - 128) / 128)

    def _extract(self, x: Tensor) -> Tensor:
        """Images scaled to [-1, 1] (B, 3, 299, 299) -> features (B, dim)."""
        return _pool_features(self._net, x)


def clean_resize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 (B, 3, 299, 299) in [0, 255], by clean-fid's own resizer."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    resized = torch.from_numpy(np.stack([resize(array) for array in arrays]))
    return resized.permute(0, 3, 1, 2).contiguous()


def _network(content: bytes, path: Path) -> Any:
    """Build the network as torch-fidelity does; the file itself can only hold tensors."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    copy = state_copy(content, path, INCEPTION)
    try:
        return FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=copy
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise not_this_network(path, INCEPTION) from error


BLOCKS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip


def blocks(until: str = "") -> tuple[str, ...]:
    """Names of the network's blocks in their order, those before `until` if that is given."""
    return BLOCKS[: BLOCKS.index(until)] if until else BLOCKS


def _pool_features(net: Any, x: Tensor) -> Tensor:
    """Images scaled to [-1, 1] (B, 3, 299, 299) -> (B, 2048).

    The network's own `forward` resizes inside, which "clean" must not.
    """
    for name in blocks():
        x = getattr(net, name)(x)
    return x.flatten(1)
