"""Files of weights: read as tensors only, taken by name and shape, hashed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metrics.catalogue import WeightsFile
from metrics.extractors.torchscript import is_torchscript, read_torchscript


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a .safetensors file, a plain state dict or a TorchScript archive, on the CPU.

    From a TorchScript archive only names that begin with `prefix` are read. No code in the file is
    run. A ValueError names the file if it holds anything else.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        if path.suffix == ".safetensors":
            loaded: object = safetensors.torch.load_file(path)
        elif is_torchscript(path):
            loaded = read_torchscript(path, prefix)
        else:
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # damaged or hostile files raise errors of any type
        raise ValueError(f"{path} does not hold the weights of a network") from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise ValueError(
            f"{path} does not hold the weights of a network: it is not a dictionary of tensors"
        )
    return loaded


def state_copy(content: bytes, path: Path, wanted: WeightsFile) -> io.BytesIO:
    """The tensors of a state dict, saved again, for libraries that unpickle files without checks.

    A ValueError names `path` if the content is anything else or a number is not finite.
    """
    copy = io.BytesIO()
    try:
        loaded = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        finite = all(bool(tensor.isfinite().all()) for tensor in loaded.values())
    except Exception as error:  # damaged or hostile files raise errors of any type
        raise not_this_network(path, wanted) from error
    if not finite:
        raise ValueError(
            f"{path} does not hold the weights of this network: some are not finite numbers"
        )
    torch.save(loaded, copy)
    copy.seek(0)
    return copy


def not_this_network(path: Path, wanted: WeightsFile) -> ValueError:
    """The error for a file that does not hold the wanted network."""
    return ValueError(
        f"{path} does not hold the weights of this network ({wanted.hash_words} in the published "
        "file): remove it and fetch it again"
    )


def weights_digest(about: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, and of the preprocessing `about`."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Weights:
    """Tensors of a file, taken one by one; each ValueError names the file and its fault."""

    def __init__(self, tensors: dict[str, Tensor], path: Path) -> None:
        self._left = dict(tensors)
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; ValueError if there is none of this name."""
        return tuple(self._peek(name).shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape as float32; each can be taken once."""
        found = self._peek(name)
        if tuple(found.shape) != shape or not found.is_floating_point():
            raise self.refusal(f"{name} is {found.dtype} {tuple(found.shape)}, not float {shape}")
        del self._left[name]
        taken = found.detach().float().contiguous()
        if not taken.isfinite().all():
            raise self.refusal(f"{name} has values that are not finite")
        return taken

    def finish(self, ignored: Iterable[str] = ()) -> None:
        """ValueError if tensors remain whose names do not begin with one of `ignored`."""
        left = [name for name in self._left if not name.startswith(tuple(ignored))]
        if left:
            raise self.refusal(f"it also holds {left[0]}" + (", ..." if len(left) > 1 else ""))

    def refusal(self, why: str) -> ValueError:
        """The error for a file that holds another network."""
        return ValueError(f"{self._path} does not hold the weights of this network: {why}")

    def _peek(self, name: str) -> Tensor:
        if name not in self._left:
            raise self.refusal(f"it has no tensor {name}")
        return self._left[name]
