"""The registered guidance rules and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from methods.rules.base import Rule
from methods.rules.compose import Composite

RULES: dict[str, type[Rule[Any]]] = {}
R = TypeVar("R", bound=type[Rule[Any]])


def register_rule(cls: R) -> R:
    """Class decorator that registers a rule under its `name`.

    Raises ValueError if the name is taken or invalid, and TypeError if the class is incomplete.
    """
    missing = [attribute for attribute in ("name", "summary") if not hasattr(cls, attribute)]
    if missing:
        raise TypeError(f"rule {cls.__qualname__} lacks {', '.join(missing)}")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", cls.name) is None:
        # Names are joined with '+', listed with ',', followed by '.', and part of file names.
        raise ValueError(f"a rule name may contain letters, digits, '-' and '_', got {cls.name!r}")
    taken = RULES.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a rule named {cls.name!r} is already registered by {taken.__module__}")
    RULES[cls.name] = cls
    return cls


def make_rule(name: str, knobs: Mapping[str, Mapping[str, Any]] | None = None) -> Rule[Any]:
    """The rule or composition of a name such as "apg" or "interval+apg".

    `knobs` maps rule names to their knobs; all other knobs keep their defaults. Raises KeyError
    with the name of an unknown rule, ValueError for rules that do not compose, and pydantic's
    ValidationError for unknown or invalid knobs.
    """
    rules = []
    for part in name.split("+"):
        cls = RULES[part]
        rules.append(cls(cls.knobs_type.model_validate(dict((knobs or {}).get(part, {})))))
    return rules[0] if len(rules) == 1 else Composite(rules)
