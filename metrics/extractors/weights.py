"""Weights that are trained here: their hash, and how a store keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metrics.memo import Arrays, Store


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


def stored_weights(
    store: Store | None, key: str, about: str, train: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The weights that `train` returns, perhaps in an earlier process with this key and `about`."""

    def compute() -> Arrays:
        return {name: tensor.detach().numpy() for name, tensor in train().items()}

    found = compute() if store is None else store("classifier", [key, about], compute)
    return {name: torch.from_numpy(array.copy()) for name, array in found.items()}
