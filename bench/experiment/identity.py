"""Hashes of everything that a number depends on."""

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
from types import FunctionType
from typing import Any, TypeGuard

PACKAGES = ("bench", "methods", "metrics")
DESCRIPTIONS = {"presets", "about"}
TITLES = {"label", "summary"}
"""Attributes of classes that change no result; titles only if they are constants."""


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(code: type | FunctionType) -> str:
    """SHA-256 of the syntax trees of the code behind a class or function.

    It covers the module that defines it and all modules that this imports, directly or not, from
    this project, from its own package or, for a plugin of a single file, from its folder. Module
    names, import lines, comments, docstrings, layout, presets (whose settings are hashed
    separately) and descriptions of classes (`about`; `label` and `summary` if constant) may change
    without making results old. The definitions of imported names count.
    """
    return module_hash(code.__module__)


def module_hash(module: str) -> str:
    """`code_hash` of an imported module by its name."""
    code = _Code(module)
    trees: dict[str, list[Any]] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in trees:
            continue
        found = [i for i in code.imported(name) if code.is_own(i.module)]
        bound = sorted((i.local, i.name, _parsed(i.module).digest) for i in found if i.name)
        trees[name] = [_parsed(name).digest, bound]
        waiting += [i.module for i in found]
    return hashlib.sha256(json.dumps(sorted(trees.values())).encode()).hexdigest()


class _Code:
    """The modules whose code may belong to `module`."""

    def __init__(self, module: str) -> None:
        self._packages = (module.partition(".")[0], *PACKAGES)
        file = getattr(sys.modules.get(module), "__file__", None)
        single = "." not in module and not hasattr(sys.modules.get(module), "__path__")
        self._folder = Path(file).parent if single and file else None

    def is_own(self, name: str) -> bool:
        """Whether a module belongs to this code, and not to Python or an installed package."""
        if name.partition(".")[0] in self._packages:
            return True
        file = _file(name) if self._folder is not None else None
        if file is None or not file.is_relative_to(self._folder or ""):
            return False
        return not {"site-packages", "dist-packages"} & set(file.parts)

    def imported(self, name: str) -> Iterator[_Import]:
        """The imports of the module `name`, each from the module that defines it."""
        for node in _parsed(name).imports:
            if isinstance(node, ast.Import):
                yield from (_Import(alias.name) for alias in node.names)
                continue
            source = _source(node, name)
            for alias in node.names:
                module = self._where(source, alias.name)
                if module == f"{source}.{alias.name}":
                    yield _Import(module)
                else:
                    yield _Import(module, alias.name, alias.asname or alias.name)

    def _where(self, source: str, name: str) -> str:
        """The module that defines a name, found through modules that only re-export it.

        Follows import lines and not the object, whose class may be from another module.
        """
        seen: set[tuple[str, str]] = set()
        while self.is_own(source) and (source, name) not in seen:
            seen.add((source, name))
            if _is_package(source) and _file(f"{source}.{name}") is not None:
                return f"{source}.{name}"
            handed_on = _parsed(source).handed_on
            handed = handed_on.get(name, handed_on.get("*"))
            if handed is not None:
                source, name = _source(handed[0], source), handed[1].replace("*", name)
        return source


@dataclass(frozen=True)
class _Import:
    """An imported module or, where `name` is not empty, a name from it and its local name."""

    module: str
    name: str = ""
    local: str = ""


@dataclass(frozen=True)
class _Parsed:
    """The hash of a module's code, its imports, and the names it imports outside functions."""

    digest: str
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    handed_on: Mapping[str, tuple[ast.ImportFrom, str]]


class _WithoutImports(ast.NodeTransformer):
    """Removes docstrings and import lines, and collects the latter."""

    def __init__(self) -> None:
        self.found: list[ast.Import | ast.ImportFrom] = []

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.found.append(node)

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if _for_types(node) else self.generic_visit(node)


@cache
def _parsed(name: str) -> _Parsed:
    tree = _tree(name)
    if tree is None:
        return _Parsed("", (), {})
    # A package that imports its names at their first use has them here for type checkers.
    outside = [part for node in tree.body for part in (node.body if _for_types(node) else [node])]
    handed_on = {
        alias.asname or alias.name: (node, alias.name)
        for node in outside
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    imports = _WithoutImports()
    code = ast.dump(imports.visit(tree))
    return _Parsed(hashlib.sha256(code.encode()).hexdigest(), tuple(imports.found), handed_on)


def _for_types(node: ast.stmt) -> TypeGuard[ast.If]:
    """Whether a statement is `if TYPE_CHECKING:`."""
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


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
    """The absolute name of the module in a `from ... import` line of the module `name`."""
    package = name.split(".") if _is_package(name) else name.split(".")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _tree(name: str) -> ast.Module | None:
    file = _file(name)
    try:
        tree = ast.parse(b"" if file is None else file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # no source, as of a compiled module
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not _describes(part)] or [ast.Pass()]
    return tree


def _describes(node: ast.stmt) -> bool:
    """Whether a line of a class sets presets or a description for reports."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    is_text = isinstance(getattr(node, "value", None), ast.Constant)
    return bool(names & DESCRIPTIONS or (names & TITLES and is_text))
