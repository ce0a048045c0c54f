"""Data sets of which only a statistics file is at hand: a reference, and nothing to train on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
import torch

from bench.data.base import Dataset, Split
from bench.data.card import STATISTICS, DataCard, read_data_card
from bench.data.prepared import DEFAULT_SAMPLES, check_statistics
from bench.system.errors import plain
from bench.system.files import sha256
from methods.spec import DataSpec


@dataclass(frozen=True)
class StatisticsOf:
    """What a statistics file does not say: shape and classes of the images, and its extractor."""

    shape: tuple[int, int, int]
    classes: int
    extractor: str


class StatisticsDataset(Dataset):
    """Images (C, H, W) that are known by a statistics file only: both splits are empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        card = self.card = read_data_card(folder)
        check_statistics(folder, card)
        self.name, self.summary, self.class_names = card.name, card.summary, card.class_names
        self.extractors = (card.extractor,)
        self.default_samples = DEFAULT_SAMPLES
        self.statistics = folder / STATISTICS

    @property
    def spec(self) -> DataSpec:
        """Images (C, H, W) and the number of classes."""
        return DataSpec(self.name, self.card.shape, len(self.class_names))

    @cached_property
    def train(self) -> Split:
        """No images."""
        none = torch.zeros(0, *self.card.shape, dtype=torch.uint8)
        return Split(none, torch.zeros(0, dtype=torch.int64))

    @property
    def reference(self) -> Split:
        """No images."""
        return self.train


def statistics_card(source: Path, name: str, of: StatisticsOf, folder: Path) -> DataCard:
    """Copy a statistics file into `folder`; its card."""
    shutil.copyfile(source, folder / STATISTICS)
    found = sha256(folder / STATISTICS)
    return DataCard(
        name=name, title=name, source=plain(source.resolve().name), source_sha256=found,
        kind="statistics", size=None, crop=None, resize=None, lossy=False, n=0, shape=of.shape,
        class_names=tuple(map(str, range(of.classes))), train=(0, 0), reference=(0, 0),
        reference_from="statistics", statistics_sha256=found, extractor=of.extractor,
        images_sha256="", labels_sha256="", train_hash="", reference_hash="",
        pillow=PIL.__version__, numpy=np.__version__,
    )  # fmt: skip
