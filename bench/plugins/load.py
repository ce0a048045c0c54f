"""Loads plugins: packages with entry points, and single files."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import bench.data
import methods
from bench.system.errors import UserError, unknown
from bench.system.launch import LAUNCHERS, Launcher
from bench.system.launch import register as register_launcher
from methods import METHODS
from methods.own_model import Model
from methods.rng import derive_seed
from methods.rules import RULES, Rule, register_rule
from metrics import EXTRACTORS, METRICS
from metrics.base import Extractor, Metric
from metrics.extractors import register_extractor
from metrics.registry import register as register_metric

BUILTIN = "built-in"


@dataclass(frozen=True)
class _Kind:
    group: str
    table: dict[str, Any]
    base: type
    register: Callable[[Any], Any]


_KINDS = {
    "methods": _Kind("guidance_bench.methods", METHODS, methods.Method, methods.register),
    "metrics": _Kind("guidance_bench.metrics", METRICS, Metric, register_metric),
    "extractors": _Kind("guidance_bench.extractors", EXTRACTORS, Extractor, register_extractor),
    "datasets": _Kind(
        "guidance_bench.datasets", bench.data.DATASETS, bench.data.Dataset, bench.data.register
    ),
    "rules": _Kind("guidance_bench.rules", RULES, Rule, register_rule),
    "launchers": _Kind("guidance_bench.launchers", LAUNCHERS, Launcher, register_launcher),
}

ORIGINS: dict[tuple[str, str], str] = {
    (kind, name): BUILTIN for kind, entry in _KINDS.items() for name in entry.table
}
"""(kind, name) -> origin of a registered entry."""
FILES: list[Path] = []
"""The plugin files loaded last, for the commands that messages suggest."""


def load_plugins(files: Sequence[Path] = ()) -> list[str]:
    """Load all entry points, then the files.

    Returns a message per failing entry point. UserError for a file, which was asked for: without it
    a night's sweep would miss its methods.
    """
    problems = []
    FILES[:] = files
    for kind in _KINDS.values():
        for point in metadata.entry_points(group=kind.group):
            package = point.dist.name if point.dist is not None else point.value
            if reason := _load(f"package {package}", point.load):
                problems.append(f"Plugin package {package} was left out: {reason}")
    for file in files:
        if not file.exists():
            raise UserError(f"--plugin {file}: there is no such file.", code=2)
        if reason := _load(f"file {file}", partial(_import_file, file)):
            raise UserError(f"Plugin file {file} cannot be used: {reason}.", code=2)
    return problems


def _load(origin: str, load: Callable[[], Any]) -> str:
    """Load one plugin; the reason for a failure, which leaves nothing registered, or ''."""
    before = {kind: dict(entry.table) for kind, entry in _KINDS.items()}
    try:
        found = load()
        for entry in _KINDS.values():
            # An entry point may name an undecorated class as well as a module.
            if inspect.isclass(found) and issubclass(found, entry.base):
                entry.register(found)
        for model in _models(found) if inspect.ismodule(found) else [found]:
            if isinstance(model, Model):
                methods.register(model.method())
    # A plugin may fail in any way, even by exiting the interpreter.
    except (Exception, SystemExit) as error:
        for kind, entry in _KINDS.items():
            entry.table.clear()
            entry.table.update(before[kind])
        return f"{type(error).__name__}: {error}"
    for kind, entry in _KINDS.items():
        for name in entry.table:
            ORIGINS.setdefault((kind, name), origin)
    return ""


def model_method(given: str) -> str:
    """The method of the function FILE:NAME in a loaded file; UserError if it is no model."""
    file, _, name = given.rpartition(":")
    found = vars(_import_file(Path(file)))
    if name not in found:
        models = [key for key, value in found.items() if isinstance(value, Model)]
        raise unknown(f"function of {file}", name, models)
    if not isinstance(found[name], Model):
        raise UserError(
            f"{name} in {file} is no declared model: put @methods.model(shape=..., classes=..., "
            "null=...) above the function.",
            code=2,
        )
    return str(found[name].name)


def _import_file(file: Path) -> Any:
    """The module of a file, imported again if the file or the weights of its models changed."""
    path = file.resolve()
    text = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    name = f"bench_plugin_{derive_seed(str(path), text):x}"
    for other, module in list(sys.modules.items()):
        if not other.startswith("bench_plugin_") or module.__file__ != str(path):
            continue
        if other == name and not any(model.changed for model in _models(module)):
            return module
        _forget(other)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("a plugin file is a Python file, its name ending in .py")
    if str(path.parent) not in sys.path:  # its neighbours can be imported, as those of a script
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _models(module: ModuleType) -> list[Model]:
    """The functions that a module declares to be models."""
    found = [value for value in vars(module).values() if isinstance(value, Model)]
    return [model for model in found if model.denoise.__module__ == module.__name__]


def _forget(name: str) -> None:
    """Remove a module and what it has registered."""
    del sys.modules[name]
    for kind, entry in _KINDS.items():
        for key in [key for key, value in entry.table.items() if value.__module__ == name]:
            del entry.table[key]
            ORIGINS.pop((kind, key), None)
