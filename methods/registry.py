"""The registered methods."""

from __future__ import annotations

from typing import Any, TypeVar

from methods.base import Method

METHODS: dict[str, type[Method[Any]]] = {}
M = TypeVar("M", bound=type[Method[Any]])


def register(cls: M) -> M:
    """Class decorator that registers a method under its `name`.

    Raises ValueError if the name is taken and TypeError if the class is incomplete.
    """
    required = ("name", "summary", "guidance", "config_type", "presets")
    missing = [attribute for attribute in required if not hasattr(cls, attribute)]
    missing += sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise TypeError(f"method {cls.__qualname__} lacks {', '.join(missing)}")
    taken = METHODS.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a method named {cls.name!r} is already registered by {taken.__module__}")
    METHODS[cls.name] = cls
    return cls
