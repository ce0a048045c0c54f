"""Loads plugins: packages with entry points, and single files."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import bench.data
import methods
from bench.experiment.identity import PACKAGES
from bench.system.entries import check_class
from bench.system.errors import UserError, told, unknown
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
OF_FILE = "bench_plugin_"
"""Begins the names of modules that are plugin files."""


@dataclass(frozen=True)
class Kind:
    """What can be registered: its table, its interface, and the arguments that make one."""

    noun: str
    table: dict[str, Any]
    base: type
    register: Callable[[Any], Any]
    positional: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    def check(self, cls: type) -> None:
        """TypeError with all that a class lacks of the interface, or does not do as it says."""
        check_class(self.noun, cls, self.base, self.positional, self.named)
        if issubclass(cls, Metric) and "pixels" in cls.needs and cls.domain != "image":
            raise TypeError(f"metric {cls.__qualname__} needs pixels, so set domain = 'image'")


KINDS = {
    "methods": Kind("method", METHODS, methods.Method, methods.register, ("config", "data")),
    "metrics": Kind("metric", METRICS, Metric, register_metric),
    "extractors": Kind(
        "extractor", EXTRACTORS, Extractor, register_extractor, ("weights",), ("download",)
    ),
    "datasets": Kind("data set", bench.data.DATASETS, bench.data.Dataset, bench.data.register),
    "rules": Kind("rule", RULES, Rule, register_rule, ("knobs",)),
    "launchers": Kind("launcher", LAUNCHERS, Launcher, register_launcher, ("settings",)),
}
"""The kinds of plugins; the entry-point group of each is guidance_bench. and its name."""

ORIGINS: dict[tuple[str, str], str] = {
    (kind, name): BUILTIN for kind, entry in KINDS.items() for name in entry.table
}
"""(kind, name) -> origin of a registered entry."""
FILES: list[Path] = []
"""The plugin files loaded last."""


def plugin_options() -> str:
    """The options that load these files again, for the commands that messages suggest."""
    return "".join(f" --plugin {shlex.quote(str(file))}" for file in FILES)


def load_plugins(files: Sequence[Path] = ()) -> list[str]:
    """Load all entry points, then the files.

    Returns a message per failing entry point. UserError for a file, which was asked for: without it
    a night's sweep would miss its methods.
    """
    problems = []
    FILES[:] = files
    for kind in KINDS:
        for point in metadata.entry_points(group=f"guidance_bench.{kind}"):
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
    before = {kind: dict(entry.table) for kind, entry in KINDS.items()}
    found = None
    try:
        found = load()
        for entry in KINDS.values():
            # An entry point may name an undecorated class as well as a module.
            if inspect.isclass(found) and issubclass(found, entry.base):
                entry.register(found)
        for model in _models(found) if inspect.ismodule(found) else [found]:
            if isinstance(model, Model):
                methods.register(model.method())
        for kind, entry in KINDS.items():
            for name, made in entry.table.items():
                if before[kind].get(name) is not made and inspect.isclass(made):
                    entry.check(made)
        if inspect.ismodule(found):
            _check_registers(found)
    # A plugin may fail in any way, even by exiting the interpreter.
    except (Exception, SystemExit) as error:
        for kind, entry in KINDS.items():
            entry.table.clear()
            entry.table.update(before[kind])
        if inspect.ismodule(found) and found.__name__.startswith(OF_FILE):
            sys.modules.pop(found.__name__, None)
        place = "" if isinstance(error, SyntaxError) else _place(error)
        return told(error) + (place and f" ({place})")
    for kind, entry in KINDS.items():
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


def _check_registers(module: ModuleType) -> None:
    """TypeError if a module has a class to register and registers none."""
    own = [c for c in vars(module).values() if getattr(c, "__module__", "") == module.__name__]
    for kind in KINDS.values():
        if any(made in kind.table.values() for made in own if inspect.isclass(made)):
            return
    for kind in KINDS.values():
        for made in own:
            if inspect.isclass(made) and issubclass(made, kind.base):
                decorator = f"{kind.register.__module__}.{kind.register.__name__}"
                raise TypeError(
                    f"{kind.noun} {made.__name__} is not registered: decorate it with @{decorator}"
                )


def blame(error: BaseException) -> str | None:
    """A sentence about an error that was raised in the code of a plugin, None for another."""
    place = _place(error)
    return f"A plugin failed in {place}: {told(error)}." if place else None


def _place(error: BaseException) -> str:
    """Where the code of a plugin raised an error, such as "line 3 of mine.py"; or ''."""
    packages = {
        made.__module__.partition(".")[0]
        for kind, entry in KINDS.items()
        for name, made in entry.table.items()
        if ORIGINS.get((kind, name)) != BUILTIN and hasattr(made, "__module__")
    } - set(PACKAGES)
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(OF_FILE) or module.partition(".")[0] in packages:
            found = f"line {line} of {Path(frame.f_code.co_filename).name}"
    return found


def _import_file(file: Path) -> Any:
    """The module of a file, imported again if the file or the weights of its models changed."""
    path = file.resolve()
    text = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    name = f"{OF_FILE}{derive_seed(str(path), text):x}"
    for other, module in list(sys.modules.items()):
        if not other.startswith(OF_FILE) or module.__file__ != str(path):
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
    for kind, entry in KINDS.items():
        for key in [key for key, value in entry.table.items() if value.__module__ == name]:
            del entry.table[key]
            ORIGINS.pop((kind, key), None)
