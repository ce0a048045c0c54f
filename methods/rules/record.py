"""The cost of sampling under a rule: evaluations, counted where the networks are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from methods.rules.call import Branch, Networks

VJP = 2.0
"""Evaluations of a vector-Jacobian product: forward, and backward to x without the weights."""


class Record:
    """Network evaluations of any number of batches."""

    def __init__(self) -> None:
        self.samples = 0
        self._counts: Counter[Branch] = Counter()

    def add(self, branch: Branch, evaluations: float) -> None:
        """Count evaluations, summed over samples."""
        self._counts[branch] += evaluations  # type: ignore[assignment]

    def evaluations(self) -> dict[Branch, float]:
        """The mean number of evaluations per sample, by branch."""
        return {branch: count / self.samples for branch, count in self._counts.items()}


class Counted(Networks):
    """Networks that count each evaluation as the share of `values`, those of a sample."""

    def __init__(self, inner: Networks, record: Record, values: int) -> None:
        def wrap(branch: Branch, network: Callable[..., Tensor] | None) -> Any:
            if network is None:
                return None

            def counted(x: Tensor, *inputs: Tensor) -> Tensor:
                self._count(branch, x)
                return network(x, *inputs)

            return counted

        super().__init__(
            wrap("main", inner.main), wrap("null", inner.null), wrap("weak", inner.weak),
            inner.module, inner.shared,
        )  # fmt: skip
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_values", values)

    _inner: Networks
    _record: Record
    _values: int

    def _count(self, branch: Branch, x: Tensor, cost: float = 1.0) -> None:
        self._record.add(branch, cost * x.numel() / self._values)

    def both(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Count one evaluation of each branch."""
        self._count("main", x)
        self._count("null", x)
        return self._inner.both(x, sigma, labels)

    def vjp(
        self, x: Tensor, sigma: Tensor, labels: Tensor, v: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Count `VJP` evaluations."""
        self._count("main", x, VJP)
        return self._inner.vjp(x, sigma, labels, v)
