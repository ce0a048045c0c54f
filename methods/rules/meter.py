"""The strength of guidance: how far a rule moves the denoised output, measured while it samples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from methods.rules.call import Networks

METERED = 64
"""Samples, from index 0, that are metered where D_null must be evaluated for the meter alone."""

ACTS = 1e-6
"""Least |D_g - D_c| / |D_c| of a call at which a rule acts: less is rounding."""

FLUSH = 64
"""Calls after which sums are taken, so that memory does not grow with the number of steps."""

Sums = npt.NDArray[np.float64]


class Meter:
    """Sums of one batch over its calls, for the pushes D_g - D_c and the updates D_c - D_null.

    `labels` (B K, classes) are those of K `particles` for each of the samples `indices` (B,). If
    a rule does not evaluate D_null, only samples below `METERED` are metered, with `networks`,
    whose evaluations are not counted.
    """

    def __init__(
        self, networks: Networks, labels: Tensor, indices: Sequence[int], particles: int
    ) -> None:
        self._networks, self._labels, self._particles = networks, labels, particles
        self._indices = np.array(indices, np.int64)
        self._rows: Tensor | None = None
        """The rows that are metered, None for all."""
        self._sums = torch.zeros(5, len(labels), dtype=torch.float64, device=labels.device)
        self._products: list[Tensor] = []

    @property
    def narrow(self) -> bool:
        """Whether only the samples below `METERED` are metered."""
        return self._rows is not None

    def note(
        self, x: Tensor, sigma: Tensor, guided: Tensor, cond: Tensor | None, null: Tensor | None
    ) -> None:
        """Add a call at `x` (B K, ...): its guided output, and D_c and D_null if they are known."""
        if (cond is None or null is None) and self._rows is None:
            self._narrow()
        rows = self._rows
        if rows is not None:
            if not len(rows):
                return
            x, guided = x[rows], guided[rows]
            labels = self._labels[rows]
            cond = self._networks.main(x, sigma, labels).to(x) if cond is None else cond[rows]
            assert self._networks.null is not None
            null = self._networks.null(x, sigma).to(x) if null is None else null[rows]
        assert cond is not None
        assert null is not None
        vectors = torch.stack([guided - cond, cond - null, cond], 1).flatten(2).double()
        self._products.append(vectors @ vectors.mT)
        if len(self._products) == FLUSH:
            self._flush()

    def _narrow(self) -> None:
        self._flush()
        rows = np.flatnonzero(np.repeat(self._indices < METERED, self._particles))
        self._rows = torch.from_numpy(rows).to(self._sums.device)
        self._sums = self._sums[:, self._rows]

    def _flush(self) -> None:
        if not self._products:
            return
        products = torch.stack(self._products)  # (calls, rows, 3, 3)
        self._products = []
        whole, size = products[..., 0, 0], products[..., 1, 1]
        along, cond = products[..., 0, 1], products[..., 2, 2]
        acts = whole > ACTS**2 * cond
        parallel = torch.where(size > 0, along.square() / size, 0.0)
        acting = torch.where(acts, torch.stack([along, size, whole, parallel]), 0.0)
        self._sums[:4] += acting.sum(1)
        self._sums[4] += size.sum(0)

    def finish(self) -> tuple[npt.NDArray[np.int64], Sums]:
        """The metered indices (m,) and their sums (m, 5), as in `Record.sums`."""
        self._flush()
        indices = self._indices[self._indices < METERED] if self.narrow else self._indices
        sums = self._sums.T.reshape(len(indices), self._particles, 5).sum(1)
        return indices, sums.cpu().numpy()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class Stopwatch:
    """Sums the time of blocks: on CUDA, which works asynchronously, the time of the device."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Time this block, whose work is on `device`."""
        if device.type == "cuda":
            start, end = _event(), _event()
            start.record()
            yield
            end.record()
            self._events.append((start, end))
            return
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    @property
    def seconds(self) -> float:
        """The time of all blocks; waits for the device."""
        for start, end in self._events:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1000
        self._events = []
        return self._seconds
