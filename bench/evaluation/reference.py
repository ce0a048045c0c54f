"""The real set of a comparison: samples, a statistics file, or both; extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluation.cache import ResultFiles, from_arrays, remembered_on_disk, to_arrays
from bench.evaluation.passes import Pass
from bench.evaluation.sides import SampleSource
from bench.evaluation.statistics_files import Statistics
from bench.experiment.identity import code_hash
from bench.system.errors import UserError
from metrics import Accumulator
from metrics.base import ExactMixture, Extractor, Metric, Need, SampleSet
from metrics.memo import Arrays, keep_in

SPATIAL = "inception-spatial"


@dataclass(frozen=True)
class Reference:
    """The real set before extraction; `hash` is that of the statistics file, if there is one."""

    name: str
    hash: str
    side: SampleSource | None
    statistics: Statistics | None = None

    @property
    def exact(self) -> ExactMixture | None:
        """The density in the form metrics take; None if it is unknown."""
        data = self.side.data if self.side is not None else None
        mixture = None if data is None else data.spec.mixture
        if mixture is None:
            return None
        means = tuple(np.asarray(modes, dtype=np.float64) for modes in mixture.means)
        return ExactMixture(means, mixture.std)

    def has_moments_alone(self, metric: Metric) -> bool:
        """Whether a metric compares only with the moments of a statistics file."""
        found = self.statistics
        return (
            found is not None and found.features is None and metric.needs_of_real() == {"moments"}
        )

    def lacks(self, metric: Metric, extractor: str) -> str | None:
        """None, or why the statistics file, with the samples if any, is not enough for a metric."""
        found, needs = self.statistics, metric.needs_of_real()
        if found is None or not needs:
            return None
        spatial = extractor == SPATIAL
        if needs == {"moments"}:
            if (found.spatial if spatial else found.moments) is not None:
                return None
            return f"{self.name} has no moments of spatial features"
        suffices = found.features is not None and not spatial and needs <= {"moments", "features"}
        if suffices or self.side is not None:
            return None
        has = "features" if found.features is not None else "moments"
        wants = " and ".join(sorted(needs - {"moments"}))
        return f"it needs {wants} of the real samples, and {self.name} holds only {has}"


def check_statistics(reference: Reference, extractors: Mapping[str, Extractor]) -> list[str]:
    """Warnings if a statistics file does not name its extractor; UserError if it is another one."""
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
    feed: Callable[[Accumulator], None],
    *,
    exact: ExactMixture | None = None,
    mixture: str = "None",
) -> SampleSet:
    """The result of one pass over the real samples, from `cache` if it is there.

    `content` is a hash of all samples and labels that `feed` passes to the accumulator; `mixture`
    describes `exact` as text. `cache` also keeps what metrics compute from this set alone.
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
        accumulator = Pass(extractors, needs)
        feed(accumulator)
        return to_arrays(accumulator.finish(exact))

    real = from_arrays(remembered_on_disk(cache, f"real-{name}", parts, compute))
    keep_in(ResultFiles(cache), real)
    return real
