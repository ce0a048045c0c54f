"""The registered data sets."""

from __future__ import annotations

from typing import TypeVar

from bench.data.base import Dataset

DATASETS: dict[str, type[Dataset]] = {}
D = TypeVar("D", bound=type[Dataset])


def register(cls: D) -> D:
    """Class decorator that enters a data set under its `name`; a taken name is an error."""
    taken = DATASETS.get(cls.name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"a data set named {cls.name!r} is registered by {taken.__module__}")
    DATASETS[cls.name] = cls
    return cls
