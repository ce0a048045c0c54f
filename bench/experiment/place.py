"""The folders of an experiment: results/<experiment>/{runs,cells,report}, results/cache."""

from __future__ import annotations

import contextlib
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from bench.system.errors import UserError, check_name, said

CARD, WEIGHTS = "run.json", "model.safetensors"
"""The files of a run."""
DEFAULT_RESULTS = Path("results")
DEFAULT_EXPERIMENT = "default"
DEFAULT_DATASET = "digits"
DEFAULT_GUIDANCE = "1..13"
DEFAULT_SEEDS = "0"
DEFAULT_INVERSIONS = 200
DEFAULT_PRECISION = "32-true"
SEED_MOST = (1 << 63) - 1
STEPS_MOST = 100_000
SAMPLES_MOST = 100_000_000
BATCH_MOST = 1_000_000
SCALE_MOST = 1e6
"""Largest guidance scale, also below 0; the others are limits of options and suites too."""


@dataclass(frozen=True)
class Experiment:
    """The folders of one experiment, each made when something is written to it."""

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
        """One folder per training run."""
        return self.root / "runs"

    @property
    def cells(self) -> Path:
        """One folder per run, one JSON row per cell."""
        return self.root / "cells"

    @property
    def samples(self) -> Path:
        """One folder per run, one file or folder of samples per cell, with --save-samples."""
        return self.root / "samples"

    @property
    def inversions(self) -> Path:
        """One folder per run, one JSON row per guidance scale of editing."""
        return self.root / "inversions"

    @property
    def tuned(self) -> Path:
        """One folder per run: the tuner's result and trials for each rule."""
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
def without_writing(experiment: Experiment) -> Iterator[Experiment]:
    """The experiment with a temporary copy of its cache."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for file in experiment.cache.iterdir() if experiment.cache.is_dir() else ():
            # A link suffices: files are replaced and never modified in place.
            (scratch / file.name).symlink_to(file.resolve())
        yield replace(experiment, scratch=scratch)


def builtin_suites() -> dict[str, Path]:
    """The suites that ship with the package, by name."""
    folder = Path(str(resources.files("bench.experiment") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def suite_experiment(name: str) -> str:
    """The experiment of a suite, read without the packages that a check of its studies needs."""
    path = builtin_suites().get(name, Path(name))
    try:
        return str(tomllib.loads(path.read_text("utf-8")).get("experiment", DEFAULT_EXPERIMENT))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the suite {name!r}: {said(error)}.", code=2) from None
