"""Samples of cells as streams of batches, whose making is timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.experiment.rules import ignored
from bench.sweep.cells import Cell, rule_name
from bench.sweep.decoded import Decoded, loaded
from bench.sweep.generate import generate
from bench.sweep.work import Latest
from bench.training.run import Run
from methods import Guidance, Method
from methods.rules.meter import Stopwatch
from methods.rules.record import Record
from metrics.base import Extractor

Batches = Iterator[tuple[Tensor, Tensor]]


class Sampler:
    """Samples cells on a device; keeps the networks of one run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: Latest[Run, tuple[Method[Any], nn.Module]] = Latest()

    def sample(
        self, cell: Cell, batch: int, start: int = 0, stop: int | None = None, *,
        off: bool = False, record: Record | None = None, decoding: Stopwatch | None = None,
    ) -> Batches:  # fmt: skip
        """Batches (samples, labels) of the samples from `start` to `stop`, by default the end.

        With `off` those of the same noise without guidance. `record` records the sampling, and
        `decoding` times the decoder of latents.
        """
        guidance = Guidance(1.0) if off else cell.guidance
        method, nets = self._loaded.get(cell.run, lambda: loaded(cell.run, self.device))
        if isinstance(method, Decoded) and decoding is not None:
            method = method.timed_by(decoding)
        return sampled(
            method, nets, guidance, cell.steps, cell.seed, stop or cell.n,
            batch=batch, device=self.device, start=start, classes=cell.classes, record=record,
        )  # fmt: skip


def sampled(
    method: Method[Any], nets: nn.Module, guidance: Guidance, steps: int, seed: int, n: int, *,
    batch: int, device: torch.device, start: int = 0, classes: Sequence[int] | None = None,
    record: Record | None = None,
) -> Batches:  # fmt: skip
    """The batches of `generate`; ValueError if the method has not applied the rule."""
    record = Record() if record is None else record
    for part in generate(
        method, nets, guidance, steps, seed, n,
        batch=batch, device=device, start=start, classes=classes, record=record,
    ):  # fmt: skip
        if rule_name(guidance) and not record.values:
            raise ValueError(ignored(method.name, guidance.rule.name))
        yield part


def sampling_seconds(whole: float, record: Record, decoding: float) -> float:
    """The seconds of sampling without those of the meter and the decoder."""
    return max(whole - record.watch.seconds - decoding, 0.0)


class Stream:
    """Batches (samples, labels) of one cell.

    `extractors` give the features of the batches in their order; `seconds` counts the time that a
    device needed to sample them, without that of the meter and `decoding`; `cpu_share` is the
    processor time of this process over these seconds, None if others sampled too; `record` has
    what was recorded.
    """

    def __init__(
        self,
        batches: Iterator[tuple[Tensor, Tensor]],
        extractors: Mapping[str, Extractor],
        record: Record | None = None,
        decoding: Stopwatch | None = None,
    ) -> None:
        self._batches, self.extractors = batches, extractors
        self.record = Record() if record is None else record
        self._decoding = Stopwatch() if decoding is None else decoding
        self.seconds = self.decoding = 0.0
        self.cpu_share: float | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, once."""
        worked = 0.0
        while True:
            started, before = time.perf_counter(), time.process_time()
            batch = next(self._batches, None)
            self.seconds += time.perf_counter() - started
            worked += time.process_time() - before
            if batch is None:
                self.cpu_share = worked / self.seconds
                self.decoding = self._decoding.seconds
                self.seconds = sampling_seconds(self.seconds, self.record, self.decoding)
                return
            yield batch
