"""The lines of `bench list extractors`."""

from __future__ import annotations

from collections.abc import Iterator

from bench.evaluation.weights import find_files
from metrics import EXTRACTORS
from metrics.extractors.catalogue import ABOUT
from metrics.extractors.weights_table import WEIGHTS


def extractor_lines() -> Iterator[tuple[str, str, str]]:
    """Name, summary with the number of features, and where its weights are."""
    for name in EXTRACTORS:
        about = ABOUT.get(name)
        if about is None:
            yield name, "", "of a plugin"
            continue
        features = f", {about.dim} features" if about.dim else ""
        yield name, f"{about.summary}{features}", _weights(name)


def _weights(name: str) -> str:
    wanted = WEIGHTS.get(name)
    if wanted is None:
        return "needs no file"
    found = find_files(wanted)
    return f"weights in {found[0].path.parent}" if found else f"weights missing: {wanted.file}"
