"""What the tuner is asked for: one object that the command line fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset, Split
from bench.data.find import find_dataset
from bench.experiment.suite import Study
from bench.sweep.request import SweepRequest
from bench.tuning.aim import choose_metric
from methods.spec import DataSpec


class TuningReference(Dataset):
    """A data set whose `reference` is of its training split.

    It has as many samples as the real reference where there are as many, so that distances that
    depend on the number are alike. Knobs that are chosen by it have not seen what a report
    measures against; the extractors are those of the data set, since `train` is.
    """

    reference_split = "train"

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.name, self.summary = data.name, data.summary
        self.class_names = data.class_names
        self.extractors = data.extractors
        self.default_samples = data.default_samples
        self._side = data.train.part(0, min(len(data.reference), len(data.train)))

    @property
    def spec(self) -> DataSpec:
        """That of the data set."""
        return self.data.spec

    @property
    def train(self) -> Split:
        """That of the data set."""
        return self.data.train

    @property
    def reference(self) -> Split:
        """The first of the training samples, which are in no order."""
        return self._side


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
