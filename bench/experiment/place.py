"""Where an experiment keeps its things: results/<experiment>/{runs,cells,report}, results/cache."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.system.errors import UserError, check_name

DEFAULT_RESULTS = Path("results")
DEFAULT_EXPERIMENT = "default"
DEFAULT_DATASET = "digits"
DEFAULT_GUIDANCE = "1..13"
DEFAULT_SEEDS = "0"
DEFAULT_INVERSIONS = 200
DEFAULT_PRECISION = "32-true"


@dataclass(frozen=True)
class Experiment:
    """The folders of one experiment; none is made before something is written to it."""

    results: Path
    name: str
    scratch: Path | None = None

    def __post_init__(self) -> None:
        check_name("experiment", self.name)
        if self.name in {"cache", "reference"}:
            raise UserError(
                f"The experiment name {self.name!r} is taken by a folder of the same name; "
                "choose another with --experiment.",
                code=2,
            )

    @property
    def root(self) -> Path:
        """results/<experiment>."""
        return self.results / self.name

    @property
    def runs(self) -> Path:
        """One folder a training run."""
        return self.root / "runs"

    @property
    def cells(self) -> Path:
        """One folder a run, one JSON row a cell."""
        return self.root / "cells"

    @property
    def samples(self) -> Path:
        """One folder a run, one file or folder of samples a cell, where they were asked for."""
        return self.root / "samples"

    @property
    def inversions(self) -> Path:
        """One folder a run, one JSON row a guidance scale of editing."""
        return self.root / "inversions"

    @property
    def tuned(self) -> Path:
        """One folder a run: what the tuner found a rule, and its trials."""
        return self.root / "tuned"

    @property
    def report(self) -> Path:
        """Tables, figures and page."""
        return self.root / "report"

    @property
    def cache(self) -> Path:
        """Trained extractors and real-side statistics, shared by all experiments."""
        return self.scratch or self.results / "cache"


@contextlib.contextmanager
def without_writing(place: Experiment) -> Iterator[Experiment]:
    """The experiment with a cache that holds the same and is thrown away afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for file in place.cache.iterdir() if place.cache.is_dir() else ():
            # Files are replaced and never written into, which leaves the target of a link alone.
            (scratch / file.name).symlink_to(file.resolve())
        yield replace(place, scratch=scratch)
