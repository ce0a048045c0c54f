"""Processes that torchrun started for one sweep: they share the samples of each cell.

The first process leads. Only it prints, holds leases, measures, and writes. The others compute the
batches that it asks for, with their features. The batches are those of one process, and their
statistics are added in order, so a row is equal bit for bit to that of one process.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, distributed

from bench.evaluation.prepare import BATCH, Evaluation
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.sweep.cells import Cell
from bench.sweep.matched import matched_cells
from bench.sweep.plan import Sweep
from bench.sweep.sampler import Sampler, Stream, sampling_seconds
from bench.system.errors import UserError
from bench.system.failures import KEPT, system_error
from bench.system.memory import free_unused
from bench.training.processes import in_words, is_loss
from methods.rules.meter import Stopwatch
from methods.rules.record import Record
from metrics.base import Extracted, Extractor

PATIENCE = timedelta(days=30)
"""Longest wait for another process. One that has died is noticed at once."""


@dataclass(frozen=True)
class Asked:
    """One batch per process: that of process r begins at sample `first + r * batch`."""

    key: str
    batch: int
    first: int
    features: bool
    off: bool
    """Without guidance, instead of the cell's own."""


@dataclass(frozen=True)
class Part:
    """A batch, its features by extractor in pieces of `BATCH`, seconds of sampling and decoding.

    `record` is that of this batch.
    """

    x: Tensor
    labels: Tensor
    features: Mapping[str, list[Extracted]]
    seconds: float
    decoding: float
    record: Record


class Ranks:
    """The processes of torchrun, in a `with` statement around the command.

    The first one plans before the others, so that only it prepares what is missing. They end with
    it and without a message; if one of them fails, the first one prints the reason.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.leads, self.size = rank == 0, size
        self._rank = rank
        self._agreed = self._outstanding = False

    def __enter__(self) -> Ranks:
        global _ranks
        if torch.cuda.is_available():
            own = int(os.environ.get("LOCAL_RANK", "0"))
            torch.cuda.set_device(own % torch.cuda.device_count())
        distributed.init_process_group("gloo", timeout=PATIENCE)
        _ranks = self
        with suppress(UserError):
            if self.leads or self._tell(None):  # the others wait until the first one has planned
                return self
        sys.exit(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _ranks
        _ranks = None
        with suppress(UserError):  # another process has gone
            if self.leads and error is None:
                self._ask(None)
            elif self.leads and not self._agreed:
                self._tell(False)
            elif isinstance(error, Exception) and not self._agreed:
                self._collect((socket.gethostname(), "", in_words(error)))
        if not self.leads and isinstance(error, UserError | KeyboardInterrupt):
            sys.exit(1)

    def agree(self, sweeps: Sequence[Sweep]) -> None:
        """End planning. UserError if a process failed to plan, or plans other cells."""
        if self.leads:
            self._tell(True)
        self._agreed = True
        own = digest({"sweeps": [_identity(each) for each in sweeps]})
        for rank, (host, plan, problem) in enumerate(
            self._collect((socket.gethostname(), own, ""))
        ):
            if problem:
                raise UserError(f"Process {rank} on {host}: {problem}")
            if plan != own:
                raise UserError(
                    f"Process {rank} on {host} plans other cells than the first process: its code, "
                    "data or checkpoints differ. Use the same version and files on all machines."
                )

    def serve(self, sweeps: Sequence[Sweep], experiment: Experiment, device: torch.device) -> None:
        """Compute what the first process asks for, until it ends."""
        cells = {cell.key: (cell, each.evaluation) for each in sweeps for cell in each.cells}
        sampler = Sampler(device)
        while (asked := self._tell(None)) is not None:
            if asked.key not in cells:  # the rows, which now tell them, are those of the first
                matched = [each for each in sweeps if each.study.matched]
                cells |= {
                    cell.key: (cell, each.evaluation)
                    for each in matched for cell in matched_cells(each, experiment)
                }  # fmt: skip
            self._collect(self._part(asked, *cells[asked.key], sampler))

    def parts(
        self, cell: Cell, evaluation: Evaluation, sampler: Sampler, batch: int, start: int,
        features: bool, off: bool,
    ) -> Iterator[Part]:  # fmt: skip
        """All batches from sample `start` on, in order; raises the error of the first that fails.

        The other processes compute the next batches while the caller uses these.
        """
        rounds = [
            Asked(cell.key, batch, first, features, off)
            for first in range(start, cell.n, batch * self.size)
        ]
        self._ask(rounds[0])
        for asked, following in zip(rounds, [*rounds[1:], None], strict=True):
            parts = self._collect(self._part(asked, cell, evaluation, sampler))
            self._outstanding = False
            failed = any(isinstance(part, Exception) for part in parts)
            if following is not None and not failed:
                self._ask(following)
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                if part is not None:
                    yield part

    def _part(
        self, asked: Asked, cell: Cell, evaluation: Evaluation, sampler: Sampler
    ) -> Part | Exception | None:
        """The batch of this process, the error in it, or None if there is none."""
        first = asked.first + self._rank * asked.batch
        if first >= cell.n:
            return None
        try:
            stop = min(first + asked.batch, cell.n)
            record = Record(metered=asked.features and evaluation.of_sampling)
            watch = Stopwatch()
            batches = sampler.sample(
                cell, asked.batch, first, stop, off=asked.off, record=record, decoding=watch
            )
            started = time.perf_counter()
            [(x, labels)] = batches
            whole, decoding = time.perf_counter() - started, watch.seconds
            seconds = sampling_seconds(whole, record, decoding)
            extractors = evaluation.extractors if asked.features else {}
            features = {
                name: [_extract(extractor, x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
                for name, extractor in extractors.items()
            }
            return Part(x, labels, features, seconds, decoding, record)
        except Exception as error:  # the code of a method or extractor may fail in any way
            failure = _portable(system_error(error) or error)
        free_unused()
        return failure

    def _ask(self, what: Asked | None) -> None:
        if self._outstanding:  # of a cell that has failed meanwhile
            self._collect(None)
        self._tell(what)
        self._outstanding = what is not None

    def _tell(self, what: Any) -> Any:
        """Send `what` from the first process to all; the others pass None and receive it."""
        told = [what]
        with _losses_explained():
            distributed.broadcast_object_list(told, src=0)
        return told[0]

    def _collect(self, what: Any) -> list[Any]:
        """What each process passes, in their order; nothing but in the first one."""
        found: list[Any] | None = [None] * self.size if self.leads else None
        with _losses_explained():
            distributed.gather_object(what, found, dst=0)
        return found or []


_ranks: Ranks | None = None


def current_ranks() -> Ranks | None:
    """The processes that torchrun started for this sweep, None if there is only one."""
    return _ranks


class SharedStream(Stream):
    """A stream whose batches and features all processes compute."""

    def __init__(self, parts: Iterator[Part], extractors: Mapping[str, Extractor]) -> None:
        self._received = {name: _Received(extractor) for name, extractor in extractors.items()}
        super().__init__(self._unpack(parts), self._received)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, once."""
        return self._batches

    def _unpack(self, parts: Iterator[Part]) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            self.seconds += part.seconds
            self.decoding += part.decoding
            self.record.merge(part.record)
            for name, pieces in part.features.items():
                self._received[name].pieces.extend(pieces)
            yield part.x, part.labels


def stream(
    cell: Cell, evaluation: Evaluation, sampler: Sampler, batch: int, start: int = 0,
    *, features: bool = True, off: bool = False,
) -> Stream:  # fmt: skip
    """The samples of a cell from `start` on, by all processes; without `features`, only them.

    With `off` those of the same noise without guidance.
    """
    if _ranks is None:
        record = Record(metered=features and evaluation.of_sampling)
        watch = Stopwatch()
        made = sampler.sample(cell, batch, start, off=off, record=record, decoding=watch)
        return Stream(made, evaluation.extractors, record, watch)
    parts = _ranks.parts(cell, evaluation, sampler, batch, start, features, off)
    return SharedStream(parts, evaluation.extractors)


class _Received(Extractor):
    """Gives the features that other processes have computed, in their order."""

    def __init__(self, extractor: Extractor) -> None:
        self.name, self.dim, self.hash = extractor.name, extractor.dim, extractor.hash
        self.has_logits, self.label_logits = extractor.has_logits, extractor.label_logits
        self.pieces: deque[Extracted] = deque()

    def __call__(self, samples: Tensor) -> Extracted:
        """The features of the next batch."""
        return self.pieces.popleft()


def _extract(extractor: Extractor, x: Tensor) -> Extracted:
    features, logits = extractor(x)
    return Extracted(features.detach().cpu(), None if logits is None else logits.detach().cpu())


def _portable(error: Exception) -> Exception:
    """The error, or one of the same text if it cannot be sent to another process."""
    with suppress(Exception):
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error.with_traceback(None)
    return RuntimeError(f"{type(error).__name__}: {error}")


def _identity(planned: Sweep) -> dict[str, Any]:
    return {
        "cells": [cell.key for cell in planned.cells],
        "values": [measurement.signature for measurement in planned.evaluation.plan],
    }


@contextmanager
def _losses_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise UserError(f"Another process of this sweep has stopped. {KEPT}") from error
