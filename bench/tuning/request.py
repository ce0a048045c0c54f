"""What the tuner is asked for: one object that the command line fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data.find import find_dataset
from bench.experiment.suite import Study
from bench.sweep.request import SweepRequest
from bench.tuning.aim import choose_metric
from bench.tuning.reference import TuningReference


@dataclass(frozen=True)
class TuneRequest:
    """What is tuned, how, and where; None is a default, an empty choice leaves out nothing."""

    scales: tuple[float, ...]
    """Guidance scales that the objective is averaged over; none is 1, where no rule acts."""
    device: torch.device
    rules: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    metric: str | None = None
    extractor: str | None = None
    samples: int | None = None
    """Samples a scale of each trial."""
    steps: int | None = None
    budget: int = 20
    """Trials a run and rule, earlier ones included."""
    block: int = 0
    """Which of the sampling seeds that no sweep may use."""
    suite: str | None = None
    null_checkpoint: str | None = None
    weak_checkpoint: str | None = None
    weights: Path | None = None
    download: bool = False
    batch: int = 256
    dry_run: bool = False

    def study(self, study: Study) -> Study:
        """A study as the tuner measures it: one metric, its own scales."""
        data = find_dataset(study.dataset)
        extractor = self.extractor or data.extractors[0]
        return study.model_copy(
            update={
                "guidance": self.scales,
                "metrics": (choose_metric(self.metric, data),),
                "extractors": (extractor,),
                "protocol": None,
                "samples": self.samples or study.samples,
                "steps": (self.steps,) if self.steps else study.steps,
                "tuned": False,
                "inversion": False,
            }
        )

    def sweep(self, studies: Sequence[Study]) -> SweepRequest:
        """The sweep of those studies whose runs are tuned, against the tuner's own reference."""
        return SweepRequest(
            studies=tuple(self.study(study) for study in studies),
            suite=self.suite,
            methods=self.methods,
            weights=self.weights,
            download=self.download,
            null_checkpoint=self.null_checkpoint,
            weak_checkpoint=self.weak_checkpoint,
            batch=self.batch,
            device=self.device,
            dry_run=self.dry_run,
            reference=TuningReference,
        )
