"""What sampling under a rule did: evaluations, counted in the networks, and strength."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from methods.rules.call import Branch, Networks
from methods.rules.meter import METERED, Meter, Stopwatch, Sums

VJP = 2
"""Evaluations of a vector-Jacobian product: forward, and backward to x without the weights."""


class Record:
    """What sampling any number of batches of one shape under a rule did.

    It counts network evaluations and, with `metered`, measures the strength of guidance: see
    `Meter`, whose own evaluations and time (`watch`) are not part of the cost. `unmetered` is the
    reason why there is no measurement.
    """

    def __init__(self, *, metered: bool = False) -> None:
        self.metered = metered
        self.unmetered = ""
        self.watch = Stopwatch()
        self._metered: list[tuple[npt.NDArray[np.int64], Sums]] = []
        self._narrow = False
        self.values = 0
        """The values of all samples."""
        self.evaluated: defaultdict[Branch, int] = defaultdict(int)
        """The values of all network inputs, by branch: an evaluation of a part of a sample counts
        as that part."""

    def evaluations(self) -> dict[Branch, float]:
        """The mean number of evaluations per sample, by branch."""
        return {branch: count / self.values for branch, count in self.evaluated.items()}

    def merge(self, later: Record) -> None:
        """Add the record of the batches that follow."""
        self.unmetered = self.unmetered or later.unmetered
        self.values += later.values
        for branch, values in later.evaluated.items():
            self.evaluated[branch] += values
        self._metered += later._metered
        self._narrow = self._narrow or later._narrow

    def add(self, meter: Meter) -> None:
        """Add the sums of a batch."""
        self._metered.append(meter.finish())
        self._narrow = self._narrow or meter.narrow

    def add_unguided(self, indices: Sequence[int]) -> None:
        """Add samples of the conditional denoiser, to which no rule does anything."""
        self._metered.append((np.array(indices, np.int64), np.zeros((len(indices), 5))))

    def sums(self) -> tuple[npt.NDArray[np.int64], Sums]:
        """The metered indices (m,), and for each of them five sums over its calls, (m, 5).

        With the push P = D_g - D_c and the update U = D_c - D_null, the sums over the calls at
        which the rule acts of <P, U>, |U|^2, |P|^2 and <P, U>^2 / |U|^2, and the sum of |U|^2
        over all calls.
        """
        indices = np.concatenate([found[0] for found in self._metered] or [np.zeros(0, np.int64)])
        sums = np.concatenate([found[1] for found in self._metered] or [np.zeros((0, 5))])
        kept = indices < METERED if self._narrow else slice(None)
        return indices[kept], sums[kept]


class Counted(Networks):
    """Networks that add each evaluation to a record."""

    inner: Networks
    _evaluated: defaultdict[Branch, int]

    def __init__(self, inner: Networks, record: Record) -> None:
        evaluated = record.evaluated

        def wrap(branch: Branch, network: Callable[..., Tensor] | None) -> Any:
            def counted(x: Tensor, *inputs: Tensor) -> Tensor:
                assert network is not None
                evaluated[branch] += x.numel()
                return network(x, *inputs)

            return None if network is None else counted

        super().__init__(
            wrap("main", inner.main), wrap("null", inner.null), wrap("weak", inner.weak),
            inner.module, inner.shared,
        )  # fmt: skip
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "_evaluated", evaluated)

    def both(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Count one evaluation of each branch."""
        self._evaluated["main"] += x.numel()
        self._evaluated["null"] += x.numel()
        return self.inner.both(x, sigma, labels)

    def vjp(
        self, x: Tensor, sigma: Tensor, labels: Tensor, v: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Count `VJP` evaluations."""
        self._evaluated["main"] += VJP * x.numel()
        return self.inner.vjp(x, sigma, labels, v)
