"""Names for what a number depends on: hashes that change when, and only when, it may change."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("bench", "methods", "metrics")


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(cls: type) -> str:
    """SHA-256 of the syntax trees of the code behind `cls`.

    That is the module that defines it and all modules of this project, of its own package or, for
    a plugin that is a single file, of its folder, that this one imports from, directly or not.
    Comments, documentation, layout and presets, whose settings are hashed by themselves, may
    change without making results old.
    """
    return module_hash(cls.__module__)


def module_hash(module: str) -> str:
    """`code_hash` of an imported module by its name."""
    code = _Code(module)
    trees: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in trees or not code.is_own(name):
            continue
        trees[name] = _parsed(name).dump
        waiting += code.imported(name)
    # The name of a plugin's module has its folder in it, which decides nothing.
    named = sorted(("" if name == module else name, tree) for name, tree in trees.items())
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


class _Code:
    """The modules that `module` may be made of."""

    def __init__(self, module: str) -> None:
        self._packages = (module.partition(".")[0], *PACKAGES)
        file = getattr(sys.modules.get(module), "__file__", None)
        alone = "." not in module and not hasattr(sys.modules.get(module), "__path__")
        self._folder = Path(file).parent if alone and file else None

    def is_own(self, name: str) -> bool:
        """Whether a module belongs to this code, and not to Python or to what is installed."""
        if name.partition(".")[0] in self._packages:
            return True
        file = _file(name) if self._folder is not None else None
        if file is None or not file.is_relative_to(self._folder or ""):
            return False
        return not {"site-packages", "dist-packages"} & set(file.parts)

    def imported(self, name: str) -> Iterator[str]:
        """Names of the modules where what the module `name` imports is defined."""
        for node in _parsed(name).imports:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            else:
                source = _source(node, name)
                yield from (self._where(source, alias.name) for alias in node.names)

    def _where(self, source: str, name: str) -> str:
        """The module that defines a name: one that only hands it on is passed through.

        By what is written and not by the object, whose class may be of yet another module.
        """
        seen: set[tuple[str, str]] = set()
        while self.is_own(source) and (source, name) not in seen:
            seen.add((source, name))
            if _is_package(source) and _file(f"{source}.{name}") is not None:
                return f"{source}.{name}"
            handed = _parsed(source).handed_on.get(name)
            if handed is not None:
                source, name = _source(handed[0], source), handed[1]
        return source


@dataclass(frozen=True)
class _Parsed:
    """A module's syntax tree as text, its imports, and the names it imports outside functions."""

    dump: str
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    handed_on: Mapping[str, tuple[ast.ImportFrom, str]]


@cache
def _parsed(name: str) -> _Parsed:
    tree = _tree(name)
    if tree is None:
        return _Parsed("", (), {})
    imports = tuple(n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    handed_on = {
        alias.asname or alias.name: (node, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return _Parsed(ast.dump(tree), imports, handed_on)


def _file(name: str) -> Path | None:
    """The file of a module, imported yet or not."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None and name not in sys.modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):
            return None
        file = None if spec is None or not spec.has_location else spec.origin
    return None if file is None else Path(file)


def _is_package(name: str) -> bool:
    file = _file(name)
    return file is not None and file.stem == "__init__"


def _source(node: ast.ImportFrom, name: str) -> str:
    """The absolute name of the module that `from ... import` in the module `name` names."""
    package = name.split(".") if _is_package(name) else name.split(".")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _tree(name: str) -> ast.Module | None:
    file = _file(name)
    try:
        tree = ast.parse(b"" if file is None else file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # no source, as of a compiled module
        return None
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not _is_presets(part)] or [ast.Pass()]
    return tree


def _is_presets(node: ast.stmt) -> bool:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return any(isinstance(target, ast.Name) and target.id == "presets" for target in targets)
