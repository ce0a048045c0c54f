"""Data sets by name, registered or prepared."""

from __future__ import annotations

from pathlib import Path

from bench.data.built_in import DATASETS, Dataset
from bench.data.card import data_root, prepared_names, read_data_card
from bench.data.latents import LatentDataset
from bench.data.prepared import PreparedDataset
from bench.data.statistics_only import StatisticsDataset
from bench.system.entries import check_object
from bench.system.errors import UserError, unknown
from methods import METHODS


def find_dataset(name: str) -> Dataset:
    """The registered or prepared data set.

    UserError, with the closest match, if unknown, or if it lacks a part of a data set.
    """
    if name in DATASETS:
        made = DATASETS[name]()
        try:
            check_object("data set", made, Dataset)
        except TypeError as error:
            raise UserError(f"A {error}.") from None
        return made
    prepared = prepared_names()
    if name in prepared:
        return open_prepared(data_root() / name)
    if any(name == p.dataset for method in METHODS.values() for p in method.presets.values()):
        raise UserError(
            f"The data set {name!r} is not prepared yet. Prepare its archive or folder: bench data "
            f"prepare SOURCE --dataset {name} (or bench train --data SOURCE --dataset {name}).",
            code=2,
        )
    raise unknown("data set", name, [*DATASETS, *prepared])


def open_prepared(folder: Path) -> Dataset:
    """The data set in a prepared folder: of images, of latents, or of statistics only."""
    card = read_data_card(folder)
    if card.statistics_sha256:
        return StatisticsDataset(folder)
    return LatentDataset(folder) if card.images_of else PreparedDataset(folder)


def has_dataset(name: str) -> bool:
    """Whether `find_dataset` knows the name."""
    return name in DATASETS or name in prepared_names()
