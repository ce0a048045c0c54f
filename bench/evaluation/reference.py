"""The real set of a comparison: extracted once, cached by everything that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.evaluation.archive import CorruptSampleSet, load_sample_set, save_sample_set
from bench.evaluation.cache import ResultFiles
from bench.experiment.identity import code_hash, digest
from bench.system.files import tell_damaged
from metrics import Accumulator
from metrics.base import ExactMixture, Extractor, Need, SampleSet
from metrics.memo import keep_in

Feed = Callable[[Accumulator], None]


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
        "format": 1,
        "code": code_hash(Accumulator),
        "split": content,
        "needs": sorted(needs),
        "extractors": {
            name: [e.hash, code_hash(type(e))] for name, e in sorted(extractors.items())
        },
        "mixture": mixture,
    }
    path = cache / f"real-{name}-{digest(parts)[:24]}.npz"
    try:
        real = load_sample_set(path)
    except (FileNotFoundError, CorruptSampleSet) as error:
        if isinstance(error, CorruptSampleSet):
            tell_damaged(path)
        # Absent or damaged: it is made again and replaces the damaged file.
        accumulator = Accumulator(extractors, needs)
        feed(accumulator)
        save_sample_set(path, accumulator.finish(exact))
        # Read back, so that the first run sees exactly what later ones see.
        real = load_sample_set(path)
    keep_in(ResultFiles(cache), real)
    return real
