"""Benchmark of guidance methods: data, training, sweeps, rows and reports."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PUBLIC = {
    "bench.conformance": "bench.plugins.conformance",
    "bench.rule_conformance": "bench.plugins.rule_conformance",
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
