"""Benchmark of guidance methods: data, training, sweeps, rows and reports.

`load`, `evaluate`, `train`, `sweep` and `report` are its functions (`bench.api`).
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.api import evaluate, load, report, sweep, train
    from bench.system.errors import UserError

__all__ = ["UserError", "evaluate", "load", "report", "sweep", "train"]

PUBLIC = {"bench.conformance": "bench.plugins.conformance"} | {
    f"bench.{kind}_conformance": f"bench.plugins.{kind}_conformance"
    for kind in ("rule", "metric", "extractor", "dataset", "launcher")
}
"""Module names that plugins' tests import, and where the modules are."""


class _PublicNames(MetaPathFinder, Loader):
    """Imports the modules of `PUBLIC`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in PUBLIC else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(PUBLIC[spec.name])
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # the import system has put the public name's there


sys.meta_path.append(_PublicNames())


def __getattr__(name: str) -> object:
    """The functions of `bench.api`, imported when one is first used."""
    if name in ("sweep", "report"):  # packages too, which make themselves callable
        return importlib.import_module(f"bench.{name}")
    if name in __all__:
        module = "bench.system.errors" if name == "UserError" else "bench.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class CallablePackage(ModuleType):
    """A package that is also the function of its name in `bench.api`."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        return getattr(importlib.import_module("bench.api"), self.__name__[6:])(*args, **kwargs)

    @property
    def __signature__(self) -> object:  # what help() and notebooks show
        function = getattr(importlib.import_module("bench.api"), self.__name__[6:])
        return function.__signature__
