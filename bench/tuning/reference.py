"""What the tuner compares with: images that no report compares with."""

from __future__ import annotations

from bench.data import Dataset, Split
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
