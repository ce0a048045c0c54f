"""What the published pickles and torch's state dicts may name, and what stands for it here.

The pickles of EDM and its descendants hold a network as the source text of its class and a
dictionary of its attributes. The text is never looked at; the attributes give parameters, buffers
and the arguments it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.system.errors import UserError
from bench.training.importing.tensors import (
    STORAGE_TYPES,
    Nested,
    View,
    rebuild_parameter,
    rebuild_tensor,
)

MAX_NESTING = 30


class Table(dict[Any, Any]):
    """Stands for OrderedDict and EasyDict; attributes beside the entries are dropped."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Take no state."""


class Container:
    """Stands for torch's ModuleDict and ModuleList: the attributes of an instance."""

    attributes: Mapping[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Take the attributes."""
        if not isinstance(state, dict):
            raise UserError("A container of modules in the file has no attributes.")
        self.attributes = state


@dataclass(frozen=True, eq=False)
class Persistent:
    """An instance of a class that the file carries: its class's name and its attributes."""

    class_name: str
    attributes: Mapping[Any, Any]


@dataclass(frozen=True, eq=False)
class Named:
    """Stands for something without meaning for the weights, such as a method; cannot be called."""

    name: str


class Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, name: object = None, *unused: object) -> None:
        if name not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            raise UserError(f"The file holds a number of the type {str(name)[:20]!a}.")
        self.dtype = np.dtype(str(name))

    def __setstate__(self, state: object) -> None:
        """Take the byte order, which must be little."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise UserError("The file holds a number in another byte order.")


def _persistent(meta: object) -> Persistent:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise UserError("The file holds a persistent object that is no instance of a class.")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise UserError("The file holds a persistent object without class name or state.")
    return Persistent(name, state)


def _scalar(dtype: object, raw: object) -> int | float | bool:
    if not isinstance(dtype, Dtype) or type(raw) is not bytes:
        raise UserError("The file holds a number of numpy without type or bytes.")
    if len(raw) != dtype.dtype.itemsize:
        raise UserError("The file holds a number of numpy of another size than its type.")
    value: int | float | bool = np.frombuffer(raw, dtype.dtype)[0].item()
    return value


def _attribute(owner: object, name: object) -> Named:
    # An attribute is never looked up: whatever it would be, it is nothing that holds weights.
    return Named(f"attribute {str(name)[:40]!a}" if isinstance(name, str) else "attribute")


def _names(items: object) -> frozenset[str]:
    if not isinstance(items, list) or not all(type(item) is str for item in items):
        raise UserError("The file holds a set of something other than names.")
    return frozenset(items)


def state_dict_table() -> dict[tuple[str, str], Any]:
    """What a state dict written by torch names."""
    dtypes = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")
    return {
        **STORAGE_TYPES,
        **{("torch", name): Named(name) for name in dtypes},
        ("collections", "OrderedDict"): Table,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    }


def official_table() -> dict[tuple[str, str], Any]:
    """What the published pickles name."""
    return {
        **state_dict_table(),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("dnnlib.util", "EasyDict"): Table,
        ("torch.storage", "_load_from_bytes"): Nested(),
        ("torch.nn.modules.container", "ModuleDict"): Container,
        ("torch.nn.modules.container", "ModuleList"): Container,
        ("builtins", "getattr"): _attribute,
        ("builtins", "set"): _names,
        ("numpy", "dtype"): Dtype,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
    }


@dataclass
class Collected:
    """Tensors by name, and the plain arguments of every module that has some, by its name."""

    views: dict[str, View] = field(default_factory=dict)
    arguments: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def collect(root: object) -> Collected:
    """Parameters, buffers and arguments of a network; a module's name is '' for the root."""
    found = Collected()
    _collect(root, "", found, 0)
    return found


def _collect(module: object, name: str, found: Collected, depth: int) -> None:
    if not isinstance(module, (Persistent, Container)):
        raise UserError(f"{_shown(name) or 'The network'} in the file is no network module.")
    if depth > MAX_NESTING:
        raise UserError(f"Modules in the file nest more than {MAX_NESTING} levels deep.")
    prefix = f"{name}." if name else ""
    attributes = module.attributes
    transient = attributes.get("_non_persistent_buffers_set")
    for part in ("_parameters", "_buffers"):
        for key, value in _entries(attributes, part, name):
            passing = isinstance(transient, (set, frozenset)) and key in transient
            if value is None or (part == "_buffers" and passing):
                continue
            if not isinstance(value, View):
                raise UserError(f"{_shown(prefix + key)} in the file is no tensor.")
            found.views[prefix + key] = value
    arguments = {**_plain(attributes), **_plain(attributes.get("_init_kwargs"))}
    if arguments:
        found.arguments[name] = arguments
    for key, value in _entries(attributes, "_modules", name):
        if value is not None:
            _collect(value, prefix + key, found, depth + 1)


def _entries(attributes: Mapping[Any, Any], part: str, name: str) -> list[tuple[str, Any]]:
    entries = attributes.get(part)
    if not isinstance(entries, dict) or not all(type(key) is str for key in entries):
        raise UserError(f"{_shown(name) or 'The network'} in the file has no table {part}.")
    return list(entries.items())


def _plain(values: object) -> dict[str, Any]:
    """Numbers, texts and lists of whole numbers, by name."""
    if not isinstance(values, dict):
        return {}
    return {
        key: value
        for key, value in values.items()
        if type(key) is str
        and (
            type(value) in (int, float, bool, str)
            or (type(value) in (list, tuple) and all(type(item) is int for item in value))
        )
    }


def _shown(name: str) -> str:
    return ascii(name[:80])[1:-1]
