"""The samples of a run's noise without guidance, which other cells are compared with."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from bench.evaluation.prepare import accumulate
from bench.sweep.sampler import Stream
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

    def get(self, noise: Hashable, unguided: Callable[[], Stream]) -> SampleSet:
        """The features of a noise; those of the stream's samples if it is new."""
        if self._held is not None and self._held[0] == noise:
            return self._held[1]
        self._held = None
        made = unguided()
        accumulator = Accumulator(made.extractors, {"features"})
        for x, labels in made:
            accumulate(accumulator, x, labels)
        return self.keep(noise, accumulator.finish())
