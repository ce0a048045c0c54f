"""Names for what a number depends on: hashes that change when, and only when, it may change."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(cls: type) -> str:
    """SHA-256 of the syntax tree of the module that defines `cls`, without its docstrings.

    Comments, documentation and layout may change without making results old; code may not.
    """
    try:
        tree = ast.parse(inspect.getsource(inspect.getmodule(cls) or cls))
    except (OSError, TypeError):  # defined where no source is kept
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
