"""The objects that checkpoints may contain, and their replacements.

The pickles of EDM and its descendants hold a network as the source text of its class and a
dictionary of its attributes. The text is never read; the attributes give parameters, buffers and
the arguments of the constructor. What is neither a tensor, a network nor a plain container gets an
inert replacement: nothing of it is kept or run.
"""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.data.pickle_bytes import encoded
from bench.data.pickle_values import Named, check_bounds
from bench.system.errors import UserError, shown
from bench.training.importing.tensors import (
    STORAGE_TYPES,
    Nested,
    View,
    rebuild_parameter,
    rebuild_subclass,
    rebuild_tensor,
)

MAX_NESTING = 30


class Table(dict[Any, Any]):
    """Replaces OrderedDict and EasyDict; attributes besides the entries are dropped."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes."""


class DefaultTable(Table):
    """Replaces defaultdict, without what makes its missing entries."""

    def __init__(self, *unused: object) -> None:
        super().__init__()


class Module:
    """Replaces a network's module, or one of torch's own."""

    class_name = ""
    """Of a network that is pickled with its class."""
    attributes: Mapping[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Take the attributes."""
        if not isinstance(state, dict):
            raise UserError("A module in the file has no attributes.")
        self.attributes = state


class Dtype:
    """Replaces numpy.dtype; `dtype` is None unless numbers of it can be read."""

    def __init__(self, name: object = None, *unused: object) -> None:
        known = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
        self.dtype = np.dtype(str(name)) if name in known else None

    def __setstate__(self, state: object) -> None:
        """Take the byte order."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            self.dtype = None


def _persistent(meta: object) -> Module:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise UserError("The file has a persistent object that is not an instance of a class.")
    name = meta.get("class_name")
    if not isinstance(name, str):
        raise UserError("The file has a persistent object without a class name.")
    found = Module()
    found.class_name = name
    # An object without attributes has no state.
    found.__setstate__({} if meta.get("state") is None else meta["state"])
    return found


def _scalar(dtype: object, raw: object) -> int | float | bool | Named:
    if not isinstance(dtype, Dtype):
        raise UserError("The file has a numpy number without type.")
    if dtype.dtype is None or type(raw) is not bytes:
        return Named("a numpy scalar")
    if len(raw) != dtype.dtype.itemsize:
        raise UserError("The file has a numpy number that does not have the size of its type.")
    value: int | float | bool = np.frombuffer(raw, dtype.dtype)[0].item()
    return value


def _attribute(owner: object, name: object) -> Named:
    # An attribute is never looked up: it could not hold weights. Protocols before 4 name nested
    # classes so, which build replacements as their owner does.
    shown_name = f"attribute {str(name)[:40]!a}" if isinstance(name, str) else "attribute"
    plain = isinstance(name, str) and not name.startswith("__")
    return Named(shown_name, builds=plain and isinstance(owner, Named) and owner.builds)


def _names(*items: object) -> frozenset[str] | Named:
    [given] = items or ([],)
    if not isinstance(given, list) or not all(type(item) is str for item in given):
        return Named("a set")
    return frozenset(given)


_DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")
_MODULES = {
    "container": ("ModuleDict", "ModuleList"),
    "linear": ("Linear", "Identity"),
    "conv": ("Conv2d",),
    "normalization": ("GroupNorm",),
    "dropout": ("Dropout",),
    "activation": ("SiLU",),
}


def checkpoint_table() -> dict[tuple[str, str], Any]:
    """The names in checkpoints whose objects are read, with their replacements."""
    builtins = {"getattr": _attribute, "set": _names}
    return {
        **STORAGE_TYPES,
        **{("torch", name): Named(name) for name in _DTYPES},
        **{(m, name): made for m in ("builtins", "__builtin__") for name, made in builtins.items()},
        **{(f"torch.nn.modules.{m}", name): Module for m in _MODULES for name in _MODULES[m]},
        ("torch.nn.parallel.distributed", "DistributedDataParallel"): Module,
        ("torch.nn.parallel.data_parallel", "DataParallel"): Module,
        ("torch._dynamo.eval_frame", "OptimizedModule"): Module,
        ("collections", "OrderedDict"): Table,
        ("collections", "defaultdict"): DefaultTable,
        ("dnnlib.util", "EasyDict"): Table,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._tensor", "_rebuild_from_type_v2"): rebuild_subclass,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("torch.storage", "_load_from_bytes"): Nested(),
        ("numpy", "dtype"): Dtype,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("_codecs", "encode"): encoded,
    }


_HARMLESS_MODULES = frozenset({"argparse", "collections", "datetime", "decimal", "enum",
    "fractions", "pathlib", "typing", "uuid"})  # fmt: skip
_HARMLESS_NAMES = frozenset(
    {("builtins", name) for name in (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
        "object", "range", "slice", "str", "tuple", "Ellipsis", "NotImplemented")}
    | {("copyreg", name) for name in ("_reconstructor", "__newobj__", "__newobj_ex__")}
    | {("torch", "device"), ("types", "SimpleNamespace"), ("functools", "partial")}
    | {(f"numpy.{core}.{name}", made) for core in ("core", "_core") for name, made in (
        ("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))}
    | {("numpy", "ndarray")}
)  # fmt: skip


def stranger(module: str, name: str) -> Named | None:
    """The replacement of an object that is not in the table; None: the file must not name it.

    Objects of Python's own library are refused except for the harmless ones, so that a file that
    wants to run something is told from one that has a setting of its program in it. Functions of
    torch and numpy may be named, as a network's activation is, and not called.
    """
    current = IMPORT_MAPPING.get(module, module)
    top = current.partition(".")[0]
    shown_name = f"{module}.{name}"[:80]
    if (current, name) in _HARMLESS_NAMES or top in _HARMLESS_MODULES:
        return Named(shown_name, builds=True)
    parts = f"{current}.{name}".split(".")
    if any(part.startswith("__") and part.endswith("__") for part in parts):
        # Except for the module of a script that was run itself.
        if not (current == "__main__" and all(not p.startswith("__") for p in parts[1:])):
            return None
    elif top in sys.stdlib_module_names:
        return None
    state = current.startswith("numpy.random.")  # built by functions
    function = top in ("torch", "numpy") and not (state or parts[-1][:1].isupper())
    return Named(shown_name, builds=not function)


Arguments = dict[str, Mapping[str, Any]]
"""Plain arguments of modules by the module's name, '' for the root."""


@dataclass(frozen=True)
class Collected:
    """What the modules of a network hold, by dotted name ('' for the network itself)."""

    views: dict[str, View] = field(default_factory=dict)
    arguments: Arguments = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)


def collect(root: Module) -> Collected:
    """Parameters and buffers of a network, its modules' plain arguments and their classes."""
    check_bounds(root)
    found = Collected()
    _collect(root, "", found, 0)
    return found


def _collect(module: object, name: str, found: Collected, depth: int) -> None:
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
            found.views[prefix + key] = value
    arguments = {**_plain(attributes), **_plain(attributes.get("_init_kwargs"))}
    if arguments:
        found.arguments[name] = arguments
    if module.class_name:
        found.classes[name] = module.class_name
    for key, value in _entries(attributes, "_modules", name):
        if value is not None:
            _collect(value, prefix + key, found, depth + 1)


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
