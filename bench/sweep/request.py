"""The options of a sweep, as one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset
from bench.experiment.place import Experiment
from bench.experiment.rules import ChosenRule, study_rules
from bench.experiment.suite import Study
from bench.system.progress import Say
from bench.training.run import Run

ChooseRules = Callable[[Study, Run, Experiment, Say], Sequence[ChosenRule]]


@dataclass(frozen=True)
class SweepRequest:
    """What to sample and measure; an empty choice skips nothing."""

    device: torch.device
    studies: tuple[Study, ...] = ()
    """The studies of `suite`; without one, the settings of each data set to sweep."""
    suite: str | None = None
    methods: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    weights: Path | None = None
    """File or folder of an extractor's weights."""
    download: bool = False
    null_checkpoint: str | None = None
    """Run, folder or file of the unconditional branch of every edm run."""
    weak_checkpoint: str | None = None
    """Run, folder or file of the weaker network of rules such as autoguidance."""
    batch: int = 256
    save_samples: str | None = None
    """Format in which to save the samples of each cell, too."""
    dry_run: bool = False
    """Only plan, and skip slow preparations."""
    reference: Callable[[Dataset], Dataset] = lambda data: data
    """The data set that samples are compared with; the tuner has its own."""
    rules: ChooseRules = lambda study, *_: study_rules(study)
    """The rules of a run, with tuned knobs if the study asks for them."""
