"""Samples that are no samples: a result about the method, not a failure of the sweep."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class Diverged(Exception):
    """A sampler gave NaN or infinity, or the same sample whatever noise and class it was given."""


def refuse_constant(stream: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Hand on batches (samples (B, ...), labels (B,)) of a cell.

    Raises `Diverged` in place of the last batch if there were several samples, all of them equal:
    metrics of such a set are numbers that mean nothing. Files of it are incomplete, like those of
    samples that are not finite.
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
