"""The registered metrics and extractors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from metrics.base import Extractor, Metric

METRICS: dict[str, type[Metric]] = {}
EXTRACTORS: dict[str, Callable[..., Extractor]] = {}
M = TypeVar("M", bound=type[Metric])
T = TypeVar("T")


def register(cls: M) -> M:
    """Class decorator that enters a metric under its `name`; a taken name is an error.

    TypeError if the class lacks a part of the interface.
    """
    required = ("name", "label", "summary", "direction")
    missing = [attribute for attribute in required if not hasattr(cls, attribute)]
    missing += sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise TypeError(f"metric {cls.__qualname__} lacks {', '.join(missing)}")
    taken = METRICS.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a metric named {cls.name!r} is registered by {taken.__module__}")
    METRICS[cls.name] = cls
    return cls


def find_metric(name: str) -> type[Metric]:
    """Return the metric registered under `name`; a KeyError names the closest and all others."""
    return _find(METRICS, name, "metric")


def find_extractor(name: str) -> Callable[..., Extractor]:
    """Return the factory registered under `name`; a KeyError names the closest and all others."""
    return _find(EXTRACTORS, name, "extractor")


def _find(entries: Mapping[str, T], name: str, what: str) -> T:
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, entries, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise KeyError(f"no {what} named {name!r}.{hint} Available: {', '.join(sorted(entries))}")
