"""Sample a method. The hash of this code is part of the key of every cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.convert import from_model, one_hot, sampling_labels
from methods import Guidance, Method, SampleRNG
from methods.rules.record import Record


class Diverged(Exception):
    """A sampler gave NaN, infinity, or the same sample for every noise and class."""


def generate(
    method: Method[Any],
    nets: nn.Module,
    guidance: Guidance,
    steps: int,
    seed: int,
    n: int,
    *,
    batch: int,
    device: torch.device,
    start: int = 0,
    classes: Sequence[int] | None = None,
    record: Record | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of final samples on the CPU, uint8 images or float32 vectors, and their classes.

    Sample i depends only on (seed, i), not on `batch` or the number of devices, and all methods
    and scales share its noise. The first sample is `start`. The classes, by default all, take
    turns. `record` counts what sampling costs and measures the strength of guidance.
    """
    if record is not None:
        guidance = replace(guidance, record=record)
    for first in range(start, n, batch):
        indices = torch.arange(first, min(first + batch, n))
        labels = sampling_labels(indices, method.data.num_classes, classes)
        rng = SampleRNG(seed, indices.tolist())
        with torch.inference_mode():
            hot = one_hot(labels, method.data.num_classes).to(device)
            x = method.sample(nets, hot, guidance, steps, rng)
        expected = (len(indices), *method.data.shape)
        if tuple(x.shape) != expected:
            raise ValueError(f"{method.name} gave samples {tuple(x.shape)}, not {expected}")
        if not torch.isfinite(x).all():
            bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
            raise Diverged(f"{bad} of samples {first} to {first + len(x) - 1} are not finite")
        yield from_model(x).cpu(), labels


def refuse_constant(stream: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass on batches (samples (B, ...), labels (B,)) of a cell.

    Raises `Diverged` instead of the last batch if there were several samples and all are equal:
    metrics of such a set mean nothing. Its files are incomplete, as if it were not finite.
    """
    first: Tensor | None = None
    waiting: tuple[Tensor, Tensor] | None = None
    n, same = 0, True
    for x, labels in stream:
        if waiting is not None:
            yield waiting
        waiting = x, labels
        first = x[0] if first is None and len(x) else first
        same = same and first is not None and torch.equal(x, first.expand_as(x))
        n += len(x)
    if n > 1 and same:
        raise Diverged(f"all {n} samples are equal: the network's output is constant")
    if waiting is not None:
        yield waiting
