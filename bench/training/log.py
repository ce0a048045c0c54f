"""The log of a training run: its loss terms."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from bench.system.files import read_whole, sync_folder, write_text
from bench.training.processes import leader_first
from bench.training.watch import Unstable, Watch, logged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bench.training.card import RunCard
    from bench.training.loggers import RunLogger

LOG = "log.jsonl"
FLUSH_EVERY = 10
SLOW = 2.0  # seconds after which a single process checks its losses anyway


class Log:
    """Loss terms: collected on the device, checked and written every few steps."""

    def __init__(self, path: Path, first: int, fabric: Fabric) -> None:
        self.path, self.fabric = path, fabric
        self.last = ""
        self.loggers: list[RunLogger] = []
        self._looked = time.monotonic()
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        with leader_first(fabric) as leads:
            if leads:
                self._cut(first)
        self.watch = Watch(path.parent)
        self.watch.recall(path, first)

    @contextmanager
    def shared(
        self, names: Sequence[str], card: RunCard, first: int, attempt: int
    ) -> Iterator[None]:
        """Pass the log to these loggers during the block, from step `first` on, or what they miss.

        `attempt` counts the rollbacks before. Only the first process has loggers.
        """
        if not names:
            yield
            return
        from bench.training.loggers import open_loggers

        with open_loggers(names, card, self.path, first, attempt, self.fabric) as self.loggers:
            yield

    def _cut(self, first: int) -> None:
        # Steps after the checkpoint are repeated.
        if self.path.exists():
            lines = read_whole(self.path).decode("utf-8", "replace").splitlines()
            kept = [line for line in lines if (entry := logged(line)) and entry[0] < first]
            write_text(self.path, "".join(f"{line}\n" for line in kept))

    def sync(self) -> None:
        """Sync the log to disk, before a checkpoint of the same steps."""
        if not self.fabric.is_global_zero or not self.path.exists():
            return
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(self.path.parent)
        for logger in self.loggers:
            logger.logger.save()

    def _write(self, by_step: dict[int, dict[str, float]]) -> None:
        if not self.path.exists():
            write_text(self.path, "")
        # An open that creates the file could write to a folder that replaced this one.
        with open(self.path, "a", encoding="utf-8", opener=_open_existing) as file:
            for step, terms in by_step.items():
                file.write(json.dumps({"step": step, "terms": terms}) + "\n")

    def add(self, step: int, means: dict[str, Tensor]) -> None:
        """Add the means of a step's terms, scalars on the device."""
        self._pending.append((step, means))

    def due(self, step: int, total: int, checkpoint: bool, asked: bool) -> bool:
        """Whether to flush now: every few steps, and before a checkpoint.

        A single process also flushes if it is asked to stop or its steps are slow. Several must
        flush at the same step, since this is a collective operation.
        """
        if checkpoint or step + 1 == total or (step + 1) % FLUSH_EVERY == 0:
            return True
        slow = time.monotonic() - self._looked > SLOW
        return self.fabric.world_size == 1 and (asked or slow)

    def flush(self, folder: Path, asked: bool) -> bool:
        """Check and write the pending terms; True if any process was asked to stop."""
        self._looked = time.monotonic()
        names = [(step, name) for step, terms in self._pending for name in terms]
        means = [value for _, terms in self._pending for value in terms.values()]
        flag = torch.tensor(float(asked), device=self.fabric.device)
        values = torch.stack([flag, *(m.float() for m in means)])
        if self.fabric.world_size > 1:
            values = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        flag_mean, *numbers = values.tolist()
        by_step: dict[int, dict[str, float]] = {}
        for (step, name), number in zip(names, numbers, strict=True):
            if not math.isfinite(number):
                raise Unstable(f"The loss term {name!r} became {number} at step {step}", folder)
            by_step.setdefault(step, {})[name] = number
        for step, terms in by_step.items():
            self.watch.add(step, terms)
        with leader_first(self.fabric) as leads:
            if leads:
                self._write(by_step)
                for logger in self.loggers:
                    logger.write(by_step)
        if by_step:
            newest = by_step[max(by_step)]
            self.last = "  ".join(f"{k} {v:.4g}" for k, v in newest.items())
        self._pending.clear()
        return bool(flag_mean > 0)


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)
