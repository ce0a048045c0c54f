"""Costly results and trained extractors on disk, named by what they depend on."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from torch import Tensor

import metrics
from bench.evaluation.archive import DAMAGE, load_arrays
from bench.experiment.identity import digest
from bench.system.files import atomic_file, tell_damaged
from bench.system.tensor_files import write_tensors
from metrics.extractors.weights import weights_digest
from metrics.memo import Arrays, content_digest

LIBRARIES = ("numpy", "scipy", "torch")
"""Whose versions decide the last digits."""


@dataclass(frozen=True)
class ResultFiles:
    """The store of `metrics.memo.keep_in` that keeps every result in a file of `folder`."""

    folder: Path

    def __call__(
        self, name: str, arguments: Sequence[str], compute: Callable[[], Arrays]
    ) -> Arrays:
        """What `compute` returns, computed by this code once."""
        parts = {"function": name, "code": code_version(), "arguments": list(arguments)}
        return remembered_on_disk(self.folder, name, parts, compute)


def remembered_on_disk(
    folder: Path, name: str, parts: Mapping[str, Any], compute: Callable[[], Arrays]
) -> Arrays:
    """What `compute` returns, from a file in `folder` if one holds it; read-only arrays.

    `parts` is everything that the result depends on, as JSON: their hash is the file's name and is
    in it, so that nothing else can be found under it. A file that does not have the checksum of
    its content is replaced.
    """
    key = digest(parts)
    path = folder / f"{name}-{key[:24]}.npz"
    arrays = _load(path, key)
    if arrays is None:
        arrays = compute()
        checksum = np.array([content_digest(arrays, {"key": key})])
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, checksum=checksum, **arrays)
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _load(path: Path, key: str) -> Arrays | None:
    try:
        arrays = load_arrays(path)
        stored = str(arrays.pop("checksum")[0])
        if stored == content_digest(arrays, {"key": key}):
            return arrays
    except FileNotFoundError:
        return None
    except DAMAGE:
        pass
    tell_damaged(path)
    return None


@functools.cache
def code_version() -> str:
    """SHA-256 of the source of all estimators, and of the libraries' versions."""
    found = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for path in sorted(Path(metrics.__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class ClassifierFiles:
    """The store of trained classifiers: a safetensors file in `folder` for each training."""

    folder: Path

    def save(self, key: str, about: str, weights: Mapping[str, Tensor]) -> None:
        """Write the weights atomically, with the key of their training."""
        # One entry, since the format keeps no order of several and equal weights make equal files.
        metadata = {"about": json.dumps([key, weights_digest(about, weights)])}
        write_tensors(self._path(key), weights, metadata)

    def load(self, key: str, about: str) -> dict[str, Tensor] | None:
        """The weights, or None if the file is missing, damaged or of other arguments."""
        path = self._path(key)
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

    def _path(self, key: str) -> Path:
        return self.folder / f"classifier-{key[:16]}.safetensors"
