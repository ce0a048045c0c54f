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

Item = TypeVar("Item", bound="WorkItem")
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
    group: str = ""
    """Items of one group share what takes long to load, such as a checkpoint."""
    work: float = 0.0
    """Network evaluations of all its images, if known."""

    @property
    def lease(self) -> Path:
        """The lease of the process that computes it."""
        return lease_path(self.path)

    @property
    def measured(self) -> int:
        """How many of its images are also measured, which takes time."""
        return self.images

    @abstractmethod
    def is_done(self, batch: int) -> bool:
        """Whether the whole result is stored; `batch` is the batch size it would be made with."""

    def is_stored(self, batch: int) -> bool:
        """Whether the whole result is stored after it was computed elsewhere."""
        return self.is_done(batch)

    @abstractmethod
    def compute(self, batch: int, tick: Tick) -> bool:
        """Compute and store the result; False if only its sample files were missing.

        Raises Diverged if samples are not finite or constant. Any other exception is a failure.
        """

    def seconds_of_work(self) -> float | None:
        """The part of the seconds of its computation that `work` took, if that was stored."""
        return None

    @abstractmethod
    def store(self, status: Status, reason: str) -> None:
        """Store a skip or failure, unless there is a result, or a divergence, which is one."""


def dealt(items: Sequence[Item], number: int, count: int) -> list[Item]:
    """All items in the order in which one of `count` processes (`number` from 0) tries them.

    Each begins with other groups, and has whole ones as long as there are enough, so that it loads
    few checkpoints. Groups with much work come first, so that no long one begins when the others
    are done. One process alone keeps the order.
    """
    if count < 2:
        return list(items)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    ordered = sorted(groups.values(), key=lambda own: sum(i.work for i in own), reverse=True)
    # Dealt like cards: the largest groups are the first ones of different processes.
    hands = min(count, len(ordered)) or 1
    mine = ordered[number % hands :: hands]
    others = [own for k, own in enumerate(ordered) if k % hands != number % hands]
    return [item for own in (*mine, *others) for item in own]


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
