"""Vectors that are their own features."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from torch import Tensor

from metrics.base import Domain, Extracted, Extractor


class IdentityExtractor(Extractor):
    """Features of float vectors (B, D): the vectors themselves, as float32."""

    name = "identity"
    domain: ClassVar[Domain] = "vector"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.hash = hashlib.sha256(b"identity float32").hexdigest()

    def __call__(self, samples: Tensor) -> Extracted:
        """Take float (B, D) -> features (B, D); ValueError on another shape or an integer dtype."""
        if samples.ndim != 2 or samples.shape[1] != self.dim or not samples.is_floating_point():
            raise ValueError(
                f"expected float vectors (B, {self.dim}), got {samples.dtype} "
                f"{tuple(samples.shape)}"
            )
        return Extracted(samples.detach().to("cpu", torch.float32), None)
