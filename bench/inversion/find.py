"""Which run is inverted, and which images: those of files, or of the reference split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset, Split
from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.inversion.files import class_index, read_images
from bench.inversion.plan import cannot_invert
from bench.report.numbers.names import slug
from bench.system.errors import UserError
from bench.training.card import RunCard, unregistered
from bench.training.run import Run, fitting_runs, open_run
from methods import METHODS, Inverts

ALL = "all"
"""Every class but the source's."""


@dataclass(frozen=True)
class Images:
    """Images with their classes, and a name a file made of each can have."""

    split: Split
    names: tuple[str, ...]


def find_run(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> Run:
    """The run asked for, or the only one that inverts images and fits; otherwise a UserError."""
    fitting = fitting_runs(experiment, run, method, dataset)
    able = [card for card in fitting if _able(card)]
    if len(able) > 1:
        raise UserError(
            f"Several runs of {experiment.root} invert images: name one with --run, of "
            f"{', '.join(card.name for card in able)}.",
            code=2,
        )
    return _ready((able or fitting)[0], experiment)


def _able(card: RunCard) -> bool:
    if unregistered(card) is not None:
        return False
    return issubclass(METHODS[card.method], Inverts) and find_dataset(card.dataset).spec.is_image


def _ready(card: RunCard, experiment: Experiment) -> Run:
    reason = unregistered(card)
    if reason is not None:
        raise UserError(f"Run {card.name!r} cannot be used: {reason}.")
    data = find_dataset(card.dataset)
    if not data.spec.is_image:
        raise UserError(
            f"Run {card.name!r} is of {data.name!r}, which has vectors: only images are inverted.",
            code=2,
        )
    if card.data_hash != data.train.hash:
        raise UserError(
            f"Run {card.name!r} was trained on other content of {data.name!r} than is here now; "
            "train it again under another --name, or restore the data."
        )
    found = open_run(card, data, experiment)
    if found is None:
        raise UserError(f"Run {card.name!r} is unfinished: train it to the end first.")
    why = cannot_invert(found)
    if why:
        able = [name for name, cls in sorted(METHODS.items()) if issubclass(cls, Inverts)]
        raise UserError(
            f"Run {card.name!r} cannot be used: {why}; these methods do: {', '.join(able)}.",
            code=2,
        )
    return found


def find_images(
    files: Sequence[Path], data: Dataset, label: str | None, samples: int, option: str
) -> Images:
    """The images of the files under one class, or the first `samples` of the reference split.

    There a class, where given, chooses the images that have it.
    """
    if files:
        if label is None:
            raise UserError(
                f"Name the class of the images with {option}: {_some(data.class_names)}.", code=2
            )
        index = class_index(label, data, option)
        images = read_images(files, data)
        labels = torch.full((len(images),), index)
        names = [f"{i:04d}-{slug(file.stem)}" for i, file in enumerate(files)]
        return Images(Split(images, labels), tuple(names))
    split = data.reference
    chosen = torch.arange(len(split))
    if label is not None:
        chosen = chosen[split.labels == class_index(label, data, option)]
    chosen = chosen[:samples]
    if len(chosen) == 0:
        raise UserError(f"The reference split of {data.name} has no image of {label!r}.")
    own = Split(split.samples[chosen], split.labels[chosen])
    names = [
        f"{int(i):04d}-{slug(data.class_names[int(y)])}"
        for i, y in zip(chosen, own.labels, strict=True)
    ]
    return Images(own, tuple(names))


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def edit_classes(asked: Sequence[str], source: int, data: Dataset) -> list[int]:
    """Run classes in the order asked for, each once; 'all' is every one but the source."""
    found: list[int] = []
    for text in asked:
        if text == ALL and ALL not in data.class_names:
            found += [k for k in range(data.spec.num_classes) if k != source]
        else:
            found.append(class_index(text, data, "--target-class"))
    return list(dict.fromkeys(found))
