"""The registered guidance rules, and how they are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from methods.rules.base import Rule
from methods.rules.compose import Composite

RULES: dict[str, type[Rule[Any]]] = {}
R = TypeVar("R", bound=type[Rule[Any]])


def register_rule(cls: R) -> R:
    """Class decorator that enters a rule under its `name`; a taken name is an error.

    TypeError if the class lacks a part of the interface.
    """
    missing = [attribute for attribute in ("name", "summary") if not hasattr(cls, attribute)]
    if missing:
        raise TypeError(f"rule {cls.__qualname__} lacks {', '.join(missing)}")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", cls.name) is None:
        # Names are joined by '+', listed with ',', followed by '.' and part of file names.
        raise ValueError(f"the name of a rule is of letters, digits, '-' and '_', got {cls.name!r}")
    taken = RULES.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a rule named {cls.name!r} is registered by {taken.__module__}")
    RULES[cls.name] = cls
    return cls


def make_rule(name: str, knobs: Mapping[str, Mapping[str, Any]] | None = None) -> Rule[Any]:
    """The rule or composition of a name such as "apg" or "interval+apg".

    `knobs` gives settings by rule and knob; others keep their defaults. KeyError with the name of
    a rule that is not registered, ValueError for rules that do not compose, and pydantic's
    ValidationError for knobs that a rule does not have.
    """
    rules = []
    for part in name.split("+"):
        cls = RULES[part]
        rules.append(cls(cls.knobs_type.model_validate(dict((knobs or {}).get(part, {})))))
    return rules[0] if len(rules) == 1 else Composite(rules)
