"""How far guidance moves samples: their distance from the samples of the same noise without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from metrics.about import About
from metrics.base import Estimate, Metric, SampleSet, Unsuitable, look_up
from metrics.errors import jackknife_groups, mean_estimate
from metrics.registry import register
from metrics.tilt import GuidedSamples

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TwinnedSamples(GuidedSamples):
    """A sample set with the features (n, D) of its twins, by extractor name.

    The twin of a sample has the same noise and class, and is made without guidance.
    """

    twins: Mapping[str, Features] = field(default_factory=dict)


def with_twins(guided: GuidedSamples, twins: SampleSet) -> TwinnedSamples:
    """The same set with its twins, in the same order."""
    held = {f.name: getattr(guided, f.name) for f in fields(GuidedSamples)}
    return TwinnedSamples(**held, twins=twins.features)


class TwinMetric(Metric):
    """A metric that needs `TwinnedSamples`, which only cells of a sweep have."""

    of_sampling = True


@register
class Displacement(TwinMetric):
    """Mean Euclidean distance of samples from their twins at g = 1, in units of the features.

    0 without guidance. The samples of one noise are compared, so its error is far below that of a
    distance between distributions.
    """

    name = "displacement"
    label = "Displacement from g = 1"
    summary = "mean distance of samples from those of the same noise at g = 1"
    about = About(order=180, low=0.0, error_of="generated", strength=True)
    direction = "none"
    needs = frozenset({"features"})
    real_needs = frozenset()
    minimum_n = 1
    default = False
    version = 2  # 1 took a rule that acts at g = 1 for no guidance, also for the cells after it

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """The mean over the generated set; the real set is not used."""
        if not isinstance(fake, TwinnedSamples):
            raise Unsuitable(f"{self.name} is measured on the cells of a sweep only")
        moved = np.subtract(
            look_up(fake.features, extractor, "features"),
            look_up(fake.twins, extractor, "features of twins"),
            dtype=np.float64,
        )
        lengths = np.sqrt(np.einsum("nd,nd->n", moved, moved))
        return mean_estimate(lengths, jackknife_groups(fake.labels))
