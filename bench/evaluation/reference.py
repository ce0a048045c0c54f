"""The real set of a comparison: samples, statistics of some, or both; extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Dataset
from bench.evaluation.archive import from_arrays, to_arrays
from bench.evaluation.cache import ResultFiles, remembered_on_disk
from bench.evaluation.sides import SampleSource
from bench.evaluation.statistics.base import Statistics
from bench.experiment.identity import code_hash
from bench.system.errors import UserError
from bench.system.files import sha256
from metrics import Accumulator
from metrics.base import ExactMixture, Extractor, Metric, Need, SampleSet
from metrics.memo import Arrays, keep_in

SPATIAL = "inception-spatial"
Feed = Callable[[Accumulator], None]


@dataclass(frozen=True)
class Reference:
    """The real set, before its features are known."""

    name: str
    hash: str
    side: SampleSource | None
    statistics: Statistics | None = None

    @property
    def exact(self) -> ExactMixture | None:
        """The density, where it is a toy's."""
        data = self.side.data if self.side is not None else None
        return None if data is None else exact_mixture(data)

    def has_moments_alone(self, metric: Metric) -> bool:
        """Whether a metric compares with the moments of a statistics file, and nothing else."""
        found = self.statistics
        return (
            found is not None and found.features is None and metric.needs_of_real() == {"moments"}
        )

    def lacks(self, metric: Metric, extractor: str) -> str | None:
        """None, or why a statistics file, with the samples if there are any, does not suffice."""
        found, needs = self.statistics, metric.needs_of_real()
        if found is None or not needs:
            return None
        spatial = extractor == SPATIAL
        if needs == {"moments"}:
            if (found.spatial if spatial else found.moments) is not None:
                return None
            return f"{self.name} has no moments of spatial features"
        if found.features is not None and not spatial and needs <= {"moments", "features"}:
            return None
        if self.side is not None:
            return None
        has = "features" if found.features is not None else "moments"
        wants = " and ".join(sorted(needs - {"moments"}))
        return f"it needs {wants} of the real samples, and {self.name} holds {has} alone"


def make_reference(
    name: str, side: SampleSource | None, statistics: Statistics | None
) -> Reference:
    """A reference with the hash of what it holds: of the file where that is one of statistics."""
    if statistics is not None:
        return Reference(name, sha256(statistics.path), side, statistics)
    if side is None:
        raise ValueError("a reference is samples or statistics")
    return Reference(name, side.hash, side)


def exact_mixture(data: Dataset) -> ExactMixture | None:
    """The density of a data set in the form metrics take, or None where it is unknown."""
    mixture = data.spec.mixture
    if mixture is None:
        return None
    means = tuple(np.asarray(modes, dtype=np.float64) for modes in mixture.means)
    return ExactMixture(means, mixture.std)


def check_statistics(reference: Reference, extractors: Mapping[str, Extractor]) -> list[str]:
    """UserError if an extractor is not what made a statistics file; warnings where that is open."""
    found = reference.statistics
    if found is None or found.moments is None:
        return []
    main = [e for name, e in extractors.items() if name != SPATIAL]
    for extractor in main:
        dim = len(found.moments.mean)
        if extractor.dim != dim:
            raise UserError(
                f"{reference.name} has features of {dim:,} dimensions and extractor "
                f"{extractor.name} gives {extractor.dim:,}: it was made with another one, which "
                "--extractor or --protocol can name."
            )
        if found.extractor and found.extractor != extractor.name:
            raise UserError(
                f"{reference.name} is of {found.extractor} features, not of {extractor.name}."
            )
        _check_hash(reference.name, found.card.extractor_hash if found.card else None, extractor)
    if SPATIAL in extractors and found.card is not None and found.spatial is not None:
        _check_hash(reference.name, found.card.spatial_hash, extractors[SPATIAL])
    if found.card is not None:
        return []
    names = ", ".join(e.name for e in main)
    return [
        f"{reference.name} does not say which network and resize made it; the values are right "
        f"only if that was {names}."
    ]


def _check_hash(name: str, recorded: str | None, extractor: Extractor) -> None:
    if recorded and recorded != extractor.hash:
        raise UserError(
            f"{name} was made with other weights, resize or preprocessing than extractor "
            f"{extractor.name} has here ({recorded[:12]}, not {extractor.hash[:12]}): make it "
            "again with bench stats make."
        )


def reference_set(
    cache: Path,
    name: str,
    content: str,
    extractors: Mapping[str, Extractor],
    needs: Iterable[Need],
    feed: Feed,
    *,
    exact: ExactMixture | None = None,
    mixture: str = "None",
) -> SampleSet:
    """What one pass over the real samples leaves, from `cache` if it has that.

    `content` is a hash of all samples and labels, which `feed` gives to the accumulator; `mixture`
    says in words what `exact` holds. What metrics compute of this set alone is kept there too.
    """
    needs = frozenset(needs)
    parts: dict[str, Any] = {
        "format": 2,
        "code": code_hash(Accumulator),
        "split": content,
        "needs": sorted(needs),
        "extractors": {
            name: [e.hash, code_hash(type(e))] for name, e in sorted(extractors.items())
        },
        "mixture": mixture,
    }

    def compute() -> Arrays:
        accumulator = Accumulator(extractors, needs)
        feed(accumulator)
        return to_arrays(accumulator.finish(exact))

    real = from_arrays(remembered_on_disk(cache, f"real-{name}", parts, compute))
    keep_in(ResultFiles(cache), real)
    return real
