"""The registered metrics and extractors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from metrics.about import About
from metrics.base import ARROWS, Extractor, Metric

METRICS: dict[str, type[Metric]] = {}
EXTRACTORS: dict[str, Callable[..., Extractor]] = {}
M = TypeVar("M", bound=type[Metric])
T = TypeVar("T")


def register(cls: M) -> M:
    """Class decorator that registers a metric under its `name`.

    ValueError if the name is taken; TypeError if the class lacks a part of the interface or its
    facts contradict each other.
    """
    missing = [part for part in ("name", "label", "summary", "direction") if not hasattr(cls, part)]
    missing += sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise TypeError(f"metric {cls.__qualname__} lacks {', '.join(missing)}")
    if (wrong := _inconsistent(cls)) is not None:
        raise TypeError(f"metric {cls.__qualname__}: {wrong}")
    taken = METRICS.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a metric named {cls.name!r} is already registered by {taken.__module__}")
    METRICS[cls.name] = cls
    return cls


def _inconsistent(cls: type[Metric]) -> str | None:
    """None, or the contradiction in the facts of a metric."""
    about: object = cls.about
    if cls.direction not in ARROWS:
        return f"direction is {cls.direction!r}, not one of {', '.join(ARROWS)}"
    if not isinstance(about, About):
        return f"about is {about!r}, not an About(...) of metrics.about"
    if cls.direction == "none" and (about.is_headline or about.lead or about.against):
        return "a headline, a leading metric or one with `against` needs a direction"
    if about.against and cls.direction != "higher":
        return "`against` requires direction 'higher'"
    return None


def find_metric(name: str) -> type[Metric]:
    """The metric registered under `name`; the KeyError suggests the closest and lists all."""
    return _find(METRICS, name, "metric")


def find_extractor(name: str) -> Callable[..., Extractor]:
    """The factory registered under `name`; the KeyError suggests the closest and lists all."""
    return _find(EXTRACTORS, name, "extractor")


def _find(entries: Mapping[str, T], name: str, what: str) -> T:
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, entries, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise KeyError(f"no {what} named {name!r}.{hint} Available: {', '.join(sorted(entries))}")
