"""Weights that are trained here: their hash, and the store that keeps them between processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class WeightsStore(Protocol):
    """Keeps trained weights; `key` is of their training, `about` of how inputs are prepared."""

    def load(self, key: str, about: str) -> dict[str, Tensor] | None:
        """The weights that were saved for these arguments, None if there are none or damaged."""

    def save(self, key: str, about: str, weights: Mapping[str, Tensor]) -> None:
        """Keep weights for later processes."""


def training_key(about: list[object], images: Tensor, labels: Tensor) -> str:
    """SHA-256 of everything that decides the weights: a description, images and labels."""
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(images.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    return digest.hexdigest()


def weights_digest(about: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, and of how inputs are prepared."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
