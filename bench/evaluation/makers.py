"""The extractors of an evaluation, with or without a data set to train one on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset
from bench.data.stand_in import RandomImages
from bench.evaluation.prepare import make_extractor
from bench.evaluation.weights import check_weights
from bench.system.errors import UserError, unknown
from bench.system.progress import Say
from methods.spec import DataSpec
from metrics import EXTRACTORS
from metrics.base import Extractor

OF_DATA = ("classifier", "identity")
"""Extractors that depend on the data, and are made once that is known."""


@dataclass(frozen=True)
class Makers:
    """What extractors are made with."""

    cache: Path
    weights: Path | None
    download: bool
    device: torch.device
    tell: Say

    def networks(self, names: Sequence[str]) -> dict[str, Extractor]:
        """Those that need weights alone; a UserError, before anything is read, if some lack.

        All names and weights are looked for before the first network is built.
        """
        for name in names:
            if name not in EXTRACTORS:
                raise unknown("extractor", name, EXTRACTORS)
        check_weights(names, self.weights, self.download)
        stand_in = RandomImages(DataSpec("images", (3, 64, 64), 1))
        return {name: self._make(name, stand_in) for name in names if name not in OF_DATA}

    def of_data(
        self, names: Sequence[str], data: Dataset | None, shape: tuple[int, ...]
    ) -> dict[str, Extractor]:
        """The others: `classifier` is trained on `data`, `identity` takes vectors of `shape`."""
        found: dict[str, Extractor] = {}
        for name in names:
            if name == "classifier":
                if data is None:
                    raise UserError(
                        "Extractor 'classifier' is trained on a data set: name one as --reference "
                        "(bench list datasets), or take another extractor.",
                        code=2,
                    )
                found[name] = self._make(name, data)
            elif name == "identity":
                found[name] = self._make(name, RandomImages(DataSpec("vectors", shape, 1)))
        return found

    def _make(self, name: str, data: Dataset) -> Extractor:
        return make_extractor(
            name, data, self.cache, self.weights, self.download, device=self.device, tell=self.tell
        )
