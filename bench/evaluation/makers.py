"""The extractors of an evaluation, with or without a data set to train one on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset
from bench.data.stand_in import RandomImages
from bench.evaluation.cache import ResultFiles
from bench.evaluation.weights import find_weights, verified
from bench.system.entries import check_object
from bench.system.errors import UserError, unknown
from bench.system.failures import system_error
from bench.system.progress import Say
from methods.spec import DataSpec
from metrics import EXTRACTORS
from metrics.base import Extractor
from metrics.catalogue import WEIGHTS
from metrics.extractors import EfficientNetExtractor, train_classifier, train_head

OF_DATA = ("classifier", "identity")
"""Extractors that depend on the data and are made once these are known."""


@dataclass(frozen=True)
class Makers:
    """Settings for making extractors; slow work reports to `say`."""

    cache: Path
    weights: Path | None = None
    download: bool = False
    device: torch.device | str = "cpu"
    say: Say = lambda _: None

    def check(self, names: Sequence[str]) -> None:
        """UserError for unknown extractors and missing weights, which `download` fetches."""
        for name in names:
            if name not in EXTRACTORS:
                raise unknown("extractor", name, EXTRACTORS)
        wanted = {name: WEIGHTS[name] for name in names if name in WEIGHTS}
        if self.weights is not None and self.weights.is_file() and len(set(wanted.values())) > 1:
            files = ", ".join(dict.fromkeys(file.file for file in wanted.values()))
            raise UserError(
                f"--weights {self.weights} is one file, but {', '.join(wanted)} need {files}: give "
                "the folder that holds them.",
                code=2,
            )
        for name, file in wanted.items():
            try:
                find_weights(file, self.weights, download=self.download)
            except (OSError, RuntimeError) as error:  # no connection, or not the published content
                raise _not_loaded(name, error) from None

    def networks(self, names: Sequence[str]) -> dict[str, Extractor]:
        """The extractors that need only weights; UserError if any weights are missing."""
        self.check(names)
        stand_in = RandomImages(DataSpec("images", (3, 64, 64), 1))
        return {name: self.make(name, stand_in) for name in names if name not in OF_DATA}

    def of_data(
        self, names: Sequence[str], data: Dataset | None, shape: tuple[int, ...]
    ) -> dict[str, Extractor]:
        """The others: `classifier` trained on `data`, `identity` for vectors of `shape`."""
        found: dict[str, Extractor] = {}
        for name in names:
            if name == "classifier":
                if data is None:
                    raise UserError(
                        "Extractor 'classifier' is trained on a data set: name one as --reference "
                        "(bench list datasets), or take another extractor.",
                        code=2,
                    )
                found[name] = self.make(name, data)
            elif name == "identity":
                found[name] = self.make(name, RandomImages(DataSpec("vectors", shape, 1)))
        return found

    def make(self, name: str, data: Dataset) -> Extractor:
        """A registered extractor, ready for use; UserError if its weights are missing or unusable.

        `classifier` is a head on the features of efficientnet-lite0 for colour images from 32x32,
        otherwise a separate small network.
        """
        try:
            if name == "identity":
                return EXTRACTORS[name](data.spec.shape[0])
            if name == "classifier":
                samples, labels = data.train.samples, data.train.labels
                # The key of a training already covers its code.
                store = ResultFiles(self.cache, code="")
                if not is_photographic(data):
                    return train_classifier(samples, labels, store=store)
                network = _efficientnet(str(self.device))
                return train_head(samples, labels, network=network, store=store, tell=self.say)
            if name == EfficientNetExtractor.name:
                return _efficientnet(str(self.device))
            if name in WEIGHTS:
                found = find_weights(WEIGHTS[name], self.weights, download=self.download)
                return EXTRACTORS[name](verified(found, WEIGHTS[name]), device=self.device)
            try:
                made = EXTRACTORS[name](self.weights, download=self.download)
                check_object("extractor", made, Extractor)
            except TypeError as error:
                raise UserError(
                    f"Extractor {name!r}, made with (weights, download=...), cannot be used: "
                    f"{error}."
                ) from None
            return made
        except (OSError, RuntimeError) as error:
            if system_error(error) is not None:
                raise
            raise _not_loaded(name, error) from None
        except ValueError as error:
            raise UserError(
                f"Extractor {name!r} cannot be used on {data.name!r}: {error}."
            ) from None


def _not_loaded(extractor: str, error: Exception) -> UserError:
    return UserError(f"Could not load the weights of extractor {extractor!r}: {error}.")


def is_photographic(data: Dataset) -> bool:
    """Whether a network trained on photographs suits the data: colour images from 32x32."""
    shape = data.spec.shape
    return data.spec.is_image and shape[0] == 3 and min(shape[1:]) >= 32


@functools.lru_cache(maxsize=1)
def _efficientnet(device: str) -> EfficientNetExtractor:
    # Shared, because it remembers its last batch: the classifier then reuses those features.
    return EfficientNetExtractor(device=device)
