"""Weights that this project trains itself: their hash, and a file that is known to be whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from metrics.damage import tell_damaged
from metrics.files import atomic_file


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


def save_weights(path: Path, key: str, about: str, weights: Mapping[str, Tensor]) -> None:
    """Write the weights atomically as safetensors, with the key of their training."""
    # One entry, since the format keeps no order of several and equal weights make equal files.
    metadata = {"about": json.dumps([key, weights_digest(about, weights)])}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(dict(weights), metadata))


def load_weights(path: Path, key: str, about: str) -> dict[str, Tensor] | None:
    """Return the cached weights, or None if the file is missing, damaged or of other arguments."""
    try:
        if not path.is_file():
            return None
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # The format finds a truncated file, not a changed byte in the weights.
        if metadata.get("about") == json.dumps([key, weights_digest(about, weights)]):
            return weights
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, TypeError, ValueError, RuntimeError):
        pass
    tell_damaged(path)
    return None
