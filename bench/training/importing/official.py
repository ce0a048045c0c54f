"""The names that published pickles and torch's state dicts may contain, and their replacements.

The pickles of EDM and its descendants hold a network as the source text of its class and a
dictionary of its attributes. The text is never read; the attributes give parameters, buffers and
the arguments of the constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.system.errors import UserError, shown
from bench.training.importing.tensors import (
    STORAGE_TYPES,
    Nested,
    View,
    rebuild_parameter,
    rebuild_tensor,
)

MAX_NESTING = 30


class Table(dict[Any, Any]):
    """Replaces OrderedDict and EasyDict; attributes besides the entries are dropped."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes."""


class Module:
    """Replaces a network's module, or torch's ModuleDict and ModuleList."""

    class_name = ""
    """Of a network that is pickled with its class."""
    attributes: Mapping[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Take the attributes."""
        if not isinstance(state, dict):
            raise UserError("A module in the file has no attributes.")
        self.attributes = state


@dataclass(frozen=True, eq=False)
class Named:
    """Replaces something that does not matter for weights, such as a method; not callable."""

    name: str


class Dtype:
    """Replaces numpy.dtype."""

    def __init__(self, name: object = None, *unused: object) -> None:
        if name not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            raise UserError(f"The file has a number of the type {str(name)[:20]!a}.")
        self.dtype = np.dtype(str(name))

    def __setstate__(self, state: object) -> None:
        """Check the byte order, which must be little-endian."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise UserError("The file has a number that is not little-endian.")


def _persistent(meta: object) -> Module:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise UserError("The file has a persistent object that is not an instance of a class.")
    name = meta.get("class_name")
    if not isinstance(name, str):
        raise UserError("The file has a persistent object without a class name.")
    found = Module()
    found.class_name = name
    found.__setstate__(meta.get("state"))
    return found


def _scalar(dtype: object, raw: object) -> int | float | bool:
    if not isinstance(dtype, Dtype) or type(raw) is not bytes:
        raise UserError("The file has a numpy number without type or bytes.")
    if len(raw) != dtype.dtype.itemsize:
        raise UserError("The file has a numpy number that does not have the size of its type.")
    value: int | float | bool = np.frombuffer(raw, dtype.dtype)[0].item()
    return value


def _attribute(owner: object, name: object) -> Named:
    # An attribute is never looked up: it could not hold weights.
    return Named(f"attribute {str(name)[:40]!a}" if isinstance(name, str) else "attribute")


def _names(items: object) -> frozenset[str]:
    if not isinstance(items, list) or not all(type(item) is str for item in items):
        raise UserError("The file has a set that does not consist of names.")
    return frozenset(items)


def state_dict_table() -> dict[tuple[str, str], Any]:
    """The names in a state dict written by torch."""
    dtypes = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")
    return {
        **STORAGE_TYPES,
        **{("torch", name): Named(name) for name in dtypes},
        ("collections", "OrderedDict"): Table,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    }


def official_table() -> dict[tuple[str, str], Any]:
    """The names in published pickles."""
    return {
        **state_dict_table(),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("dnnlib.util", "EasyDict"): Table,
        ("torch.storage", "_load_from_bytes"): Nested(),
        ("torch.nn.modules.container", "ModuleDict"): Module,
        ("torch.nn.modules.container", "ModuleList"): Module,
        ("builtins", "getattr"): _attribute,
        ("builtins", "set"): _names,
        ("numpy", "dtype"): Dtype,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
    }


Arguments = dict[str, Mapping[str, Any]]
"""Plain arguments of modules by the module's name, '' for the root."""


def collect(root: Module) -> tuple[dict[str, View], Arguments]:
    """Parameters and buffers of a network by name, and its modules' arguments."""
    views: dict[str, View] = {}
    arguments: Arguments = {}
    _collect(root, "", views, arguments, 0)
    return views, arguments


def _collect(
    module: object, name: str, views: dict[str, View], found: Arguments, depth: int
) -> None:
    if not isinstance(module, Module):
        raise UserError(f"{shown(name) or 'The network'} in the file is no network module.")
    if depth > MAX_NESTING:
        raise UserError(f"Modules in the file nest more than {MAX_NESTING} levels deep.")
    prefix = f"{name}." if name else ""
    attributes = module.attributes
    transient = attributes.get("_non_persistent_buffers_set")
    for part in ("_parameters", "_buffers"):
        for key, value in _entries(attributes, part, name):
            skipped = isinstance(transient, (set, frozenset)) and key in transient
            if value is None or (part == "_buffers" and skipped):
                continue
            if not isinstance(value, View):
                raise UserError(f"{shown(prefix + key)} in the file is no tensor.")
            views[prefix + key] = value
    arguments = {**_plain(attributes), **_plain(attributes.get("_init_kwargs"))}
    if arguments:
        found[name] = arguments
    for key, value in _entries(attributes, "_modules", name):
        if value is not None:
            _collect(value, prefix + key, views, found, depth + 1)


def _entries(attributes: Mapping[Any, Any], part: str, name: str) -> list[tuple[str, Any]]:
    entries = attributes.get(part)
    if not isinstance(entries, dict) or not all(type(key) is str for key in entries):
        raise UserError(f"{shown(name) or 'The network'} in the file has no table {part}.")
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
