"""A work item: one result that any one process computes and stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bench.experiment.rows import Status
from bench.system.progress import Tick
from bench.system.sharing import lease_path

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class WorkItem(ABC):
    """A cell, the floor, an inversion or a tuner's trial: `execute` runs them all alike."""

    what: str
    """Its name in progress and errors."""
    path: Path
    """The file of its result; its lease lies beside it."""
    images: int
    """Its share of the progress bar."""
    skip: str = ""
    """Why it cannot be computed, or ''."""
    after: Sequence[Path] = ()
    """Results that it needs and that other items make."""

    @property
    def lease(self) -> Path:
        """The lease of the process that computes it."""
        return lease_path(self.path)

    @abstractmethod
    def is_done(self, batch: int) -> bool:
        """Whether the whole result is stored; `batch` is the batch size it would be made with."""

    @abstractmethod
    def compute(self, batch: int, tick: Tick) -> bool:
        """Compute and store the result; False if only its sample files were missing.

        Raises Diverged if samples are not finite or constant. Any other exception is a failure.
        """

    @abstractmethod
    def store(self, status: Status, reason: str) -> None:
        """Store a skip or failure, unless there is a result, or a divergence, which is one."""


class Latest(Generic[K, V]):
    """Keeps the value of one key, and frees it before that of another key is made."""

    def __init__(self) -> None:
        self._held: tuple[K, V] | None = None

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made unless it is the one kept."""
        if self._held is None or self._held[0] is not key:
            self._held = None
            self._held = key, make()
        return self._held[1]
