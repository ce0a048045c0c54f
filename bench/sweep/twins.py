"""The samples of a run's noise without guidance, which other cells are compared with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import Tensor

from bench.evaluation.prepare import Evaluation, accumulate
from metrics import Accumulator
from metrics.base import SampleSet


class Twins:
    """Keeps the features at g = 1 of the last noise, which all its cells share."""

    def __init__(self) -> None:
        self._held: tuple[Hashable, SampleSet] | None = None

    def keep(self, noise: Hashable, samples: SampleSet) -> SampleSet:
        """Keep the samples of a cell without guidance."""
        features = SampleSet(samples.n, samples.labels, samples.features)
        self._held = noise, features
        return features

    def get(
        self, noise: Hashable, unguided: Iterable[tuple[Tensor, Tensor]], evaluation: Evaluation
    ) -> SampleSet:
        """The features of a noise; from batches (samples (B, ...), labels (B,)) if it is new."""
        if self._held is not None and self._held[0] == noise:
            return self._held[1]
        self._held = None
        accumulator = Accumulator(evaluation.extractors, {"features"})
        for x, labels in unguided:
            accumulate(accumulator, x, labels)
        return self.keep(noise, accumulator.finish())
