"""Reads the tensors of a TorchScript archive without running the program in it.

The archive is a zip: `<top>/data.pkl` describes a tree of modules, `<top>/data/<key>` hold the
numbers. `torch.jit.load` would build the modules and compile their code. Here an unpickler reads
the tree that knows only tensors and generic containers.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TREE_LIMIT = 1 << 24
_DEEPEST = 30
_MOST_VISITS = 1_000_000


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip that holds code next to its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The parameters and buffers whose names begin with `prefix`, by their names in the module.

    ValueError if the archive is damaged or its tree holds anything except modules, plain values and
    tensors. Nothing in the archive is executed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (top,) = {name.partition("/")[0] for name in archive.namelist()}
            about = archive.getinfo(f"{top}/data.pkl")
            if about.file_size > _TREE_LIMIT:
                raise ValueError("its description is too large")
            tree = _Unpickler(BytesIO(archive.read(about))).load()
            walk = _walk(tree, "", 0, count(1))
            found = {name: t for name, t in walk if name.startswith(prefix)}
            return {name: _read(archive, top, tensor) for name, tensor in found.items()}
    # A hostile pickle may raise any of these.
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
        RecursionError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise ValueError(f"not a TorchScript archive of tensors ({error})") from error


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str


@dataclass(frozen=True)
class _Stored:
    """The description of a tensor whose numbers are not read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Node:
    """Replaces an object of any class: holds its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise TypeError("a module's state is not a dictionary")
        self.attributes = state


def _tensor(storage: object, offset: int, size: object, stride: object, *_: object) -> _Stored:
    if not isinstance(storage, _Storage) or type(offset) is not int:
        raise TypeError("a tensor has no storage")
    dimensions = (_whole(size), _whole(stride))
    return _Stored(storage, offset, *dimensions)


def _whole(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError("a tensor's shape is not made of whole numbers")
    return numbers


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Replacements for the few names in such archives; nothing is imported by name."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Node
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A new function each time, since a pickle may set attributes of it.
            return lambda *described: _tensor(*described)
        if module == "torch.jit._pickle":  # typed lists and dictionaries
            return lambda value, *_: value
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> _Storage:
        """('storage', type, key, device, numbers) -> the file of the numbers."""
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("the description of a storage is invalid")
        return _Storage(dtype, key)


def _walk(
    node: object, name: str, depth: int, visits: Iterator[int]
) -> Iterator[tuple[str, _Stored]]:
    if depth > _DEEPEST:
        raise ValueError("its modules are nested too deeply")
    if next(visits) > _MOST_VISITS:  # shared parts are visited each time
        raise ValueError("it has too many modules")
    if isinstance(node, _Stored):
        yield name, node
    elif isinstance(node, _Node):
        for attribute, value in node.attributes.items():
            yield from _walk(
                value, f"{name}.{attribute}" if name else str(attribute), depth + 1, visits
            )


def _read(archive: zipfile.ZipFile, top: str, stored: _Stored) -> Tensor:
    dtype = stored.storage.dtype
    entry = archive.getinfo(f"{top}/data/{stored.storage.key}")
    if entry.compress_type != zipfile.ZIP_STORED:  # never in real archives; a zip bomb
        raise ValueError("its tensors are compressed")
    content = bytearray(archive.read(entry))
    if not prod(stored.size):
        return torch.empty(stored.size, dtype=dtype)
    if len(stored.size) != len(stored.stride):
        raise ValueError("a tensor has a wrong number of strides")
    numbers = torch.frombuffer(content, dtype=dtype)
    # as_strided refuses to read beyond the storage.
    return torch.as_strided(numbers, stored.size, stored.stride, stored.offset)
