"""Names for what a number depends on: hashes that change when, and only when, it may change."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

PACKAGES = ("bench", "methods", "metrics")


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(cls: type) -> str:
    """SHA-256 of the syntax trees of the code behind `cls`.

    That is the module that defines it and all modules of this project, or of its own package,
    that this one imports from, directly or not. Comments, documentation, layout and presets,
    whose settings are hashed by themselves, may change without making results old.
    """
    return module_hash(cls.__module__)


def module_hash(module: str) -> str:
    """`code_hash` of an imported module by its name."""
    own = module.partition(".")[0]
    trees: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in trees or name.partition(".")[0] not in (own, *PACKAGES):
            continue
        tree = _tree(sys.modules[name]) if name in sys.modules else None
        trees[name] = "" if tree is None else ast.dump(tree)
        if tree is not None:
            waiting += _imported(tree, sys.modules[name])
    # The name of a plugin's module has its folder in it, which decides nothing.
    named = sorted(("" if name == module else name, tree) for name, tree in trees.items())
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _tree(module: ModuleType) -> ast.Module | None:
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):  # no source is kept, as in an interactive session
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


def _imported(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Names of the modules where what `module` imports is defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = (module.__package__ or "").split(".")
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                if f"{source}.{alias.name}" in sys.modules:
                    yield f"{source}.{alias.name}"
                    continue
                # A package that only hands on a name is passed through to who defines it.
                found = getattr(sys.modules.get(source), alias.name, None)
                defined = getattr(found, "__module__", None)
                yield defined if isinstance(defined, str) else source
