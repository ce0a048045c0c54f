"""The Inception network of the Frechet Inception Distance, from a local weights file."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metrics.catalogue import INCEPTION
from metrics.extractors.images import ChunkedExtractor, tf1_resize
from metrics.extractors.tensors import not_this_network, state_copy

SIZE = 299
SPATIAL_CHANNELS = 7
SPATIAL_SIDE = 17

Resize = Literal["tf1", "clean"]


class InceptionExtractor(ChunkedExtractor):
    """Pool features (B, 2048) and unbiased logits (B, 1008) of Inception-v3 (2015-12-05).

    `resize` "tf1" is TensorFlow 1's bilinear resize of the original FID, emulated by
    torch-fidelity; "clean" is the antialiased bicubic one of Parmar et al. (2022), clipped to the
    range and not rounded. They are different extractors: their values do not compare. Grey images
    are repeated to three channels.

    ValueError if the file `weights` does not hold this network.
    """

    dim = 2048
    has_logits = True

    def __init__(
        self, weights: Path, *, resize: Resize = "tf1", device: str | torch.device = "cpu"
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

    def _features(self, images: Tensor) -> Tensor:
        if self.resize == "tf1":
            x = tf1_resize(images.to(self.device).float(), SIZE)
        else:
            x = clean_resize(images).to(self.device)
        return self._extract((x - 128) / 128)

    def _logits(self, features: Tensor) -> Tensor | None:
        logits: Tensor = features.to(self.device) @ self._net.fc.weight.T
        return logits.cpu()

    def _extract(self, x: Tensor) -> Tensor:
        """Images scaled to [-1, 1] (B, 3, 299, 299) -> features (B, dim).

        The network's own `forward` would resize again, which "clean" must not.
        """
        for name in BLOCKS:
            x = getattr(self._net, name)(x)
        return x.flatten(1)


class InceptionSpatialExtractor(InceptionExtractor):
    """Unpooled features (B, 2023) of Inception-v3, in which the Frechet distance is sFID.

    Nash et al. (2021), section 5. The first 7 channels of the 1x1 branch of the third 17x17 block
    ("mixed_6/conv" of the published graph), as in ADM's evaluator, with the resize of TensorFlow 1.
    There are no logits. Errors as `InceptionExtractor`.
    """

    dim = SPATIAL_CHANNELS * SPATIAL_SIDE * SPATIAL_SIDE
    has_logits = False

    def __init__(self, weights: Path, *, device: str | torch.device = "cpu") -> None:
        super().__init__(weights, resize="tf1", device=device)
        self.name = "inception-spatial"
        about = f"{self.hash} Mixed_6d.branch1x1[:, :{SPATIAL_CHANNELS}]"
        self.hash = hashlib.sha256(about.encode()).hexdigest()

    def _logits(self, features: Tensor) -> None:
        return None

    def _extract(self, x: Tensor) -> Tensor:
        for name in BLOCKS[: BLOCKS.index("Mixed_6d")]:
            x = getattr(self._net, name)(x)
        branch: Tensor = self._net.Mixed_6d.branch1x1(x)
        return branch[:, :SPATIAL_CHANNELS].flatten(1)


def clean_resize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 (B, 3, 299, 299) in [0, 255], by clean-fid's own resizer."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    resized = torch.from_numpy(np.stack([resize(array) for array in arrays]))
    return resized.permute(0, 3, 1, 2).contiguous()


def _network(content: bytes, path: Path) -> Any:
    """torch-fidelity's network, from a copy of the file that holds tensors only."""
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
"""The network's blocks in their order."""
