"""Spatial features of the Inception network, for sFID."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from metrics.extractors.inception import InceptionExtractor, blocks

CHANNELS = 7
SIDE = 17


class InceptionSpatialExtractor(InceptionExtractor):
    """Unpooled features (B, 2023) of Inception-v3: what Nash et al. (2021), section 5, call sFID.

    The first 7 channels of the 1x1 branch of the third 17x17 block ("mixed_6/conv" of the
    published graph), as ADM's evaluator takes them, with the resize of TensorFlow 1. There are no
    logits. The Frechet distance in these features is sFID. Errors as `InceptionExtractor`.
    """

    dim = CHANNELS * SIDE * SIDE
    has_logits = False

    def __init__(
        self,
        weights: Path,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(weights, resize="tf1", device=device)
        self.name = "inception-spatial"
        about = f"{self.hash} Mixed_6d.branch1x1[:, :{CHANNELS}]"
        self.hash = hashlib.sha256(about.encode()).hexdigest()

    def _extract(self, x: Tensor) -> Tensor:
        for name in blocks(until="Mixed_6d"):
            x = getattr(self._net, name)(x)
        branch: Tensor = self._net.Mixed_6d.branch1x1(x)
        return branch[:, :CHANNELS].flatten(1)
