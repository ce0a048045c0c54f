"""The options of the tuner, as one object, and the reference that it compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.data import Dataset, Split
from bench.data.find import find_dataset
from bench.experiment.suite import Study
from bench.sweep.request import SweepRequest
from bench.system.errors import UserError
from bench.tuning.aim import choose_metric
from bench.tuning.target import outcomes_for
from methods.spec import DataSpec


class TuningReference(Dataset):
    """A data set whose `reference` is part of its training split.

    If possible it has as many samples as the real reference, because distances depend on their
    number. The chosen knobs do not depend on the reference of a report.
    """

    reference_split = "train"

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.name, self.summary = data.name, data.summary
        self.class_names = data.class_names
        self.extractors = data.extractors
        self.default_samples = data.default_samples
        images = data.images.train
        if not len(images):
            raise UserError(
                f"{data.name!r} has no training images to tune on: it has only statistics."
            )
        self._side = images.part(0, min(len(data.reference), len(images)))

    @property
    def spec(self) -> DataSpec:
        """The same as of the data set."""
        return self.data.spec

    @property
    def train(self) -> Split:
        """The same as of the data set."""
        return self.data.images.train

    @property
    def reference(self) -> Split:
        """The first training samples, which are in random order."""
        return self._side


@dataclass(frozen=True, kw_only=True)
class TuneRequest(SweepRequest):
    """What to tune; `measuring` fills `studies`."""

    scales: tuple[float, ...]
    """Guidance scales that the objective is averaged over, without 1, where no rule acts."""
    datasets: tuple[str, ...] = ()
    rule_names: tuple[str, ...] = ()
    metric: str | None = None
    matched: bool = True
    """Whether values are compared with those of CFG at equal outcome."""
    extractor: str | None = None
    samples: int | None = None
    """Samples per scale of each trial."""
    steps: int | None = None
    budget: int = 20
    """Trials per run and rule, earlier ones included."""
    block: int = 0
    """Which of the sampling seeds that no sweep may use."""

    def measuring(self, studies: Sequence[Study]) -> TuneRequest:
        """The sweep of the runs of these studies against the tuner's own reference."""
        own = tuple(self._study(study) for study in studies)
        return replace(self, studies=own, reference=TuningReference)

    def outcomes(self, data: Dataset) -> tuple[str, ...]:
        """The outcomes to match by; () for none."""
        return outcomes_for(data.spec.is_image) if self.matched else ()

    def _study(self, study: Study) -> Study:
        """A study as the tuner measures it: one metric and outcomes, its own scales."""
        data = find_dataset(study.dataset)
        return study.model_copy(
            update={
                "guidance": self.scales,
                "metrics": tuple(
                    dict.fromkeys((choose_metric(self.metric, data), *self.outcomes(data)))
                ),
                "extractors": (self.extractor or data.extractors[0],),
                "protocol": None,
                "samples": self.samples or study.samples,
                "steps": (self.steps,) if self.steps else study.steps,
                "tuned": False,
                "inversion": False,
                "matched": False,
                "match_nfe": False,
            }
        )
