"""What `bench invert` and `bench edit` are asked for: a run, and images with their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import Dataset, Split
from bench.data.find import find_dataset
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.inversion.files import class_index, read_images
from bench.inversion.plan import cannot_invert
from bench.report.numbers.names import slug
from bench.system.errors import UserError, unknown
from bench.training.run import Run, open_run
from bench.training.runs import RunCard, method_class, trained_runs, unregistered
from methods import METHODS, Inverts


@dataclass(frozen=True)
class Images:
    """Images with their classes, and a name a file made of each can have."""

    split: Split
    names: tuple[str, ...]


def find_run(
    place: Experiment, run: str | None, method: str | None, dataset_name: str | None
) -> Run:
    """The run asked for, or the only one that inverts images and fits; otherwise a UserError."""
    if method is not None:
        method_class(method)
    if dataset_name is not None:
        find_dataset(dataset_name)
    cards = trained_runs(place)
    if run is not None:
        named = [card for card in cards if card.name == run]
        if not named:
            if not cards:
                raise _no_run(place, method)
            raise unknown("run", run, [card.name for card in cards])
        for what, asked, has in (
            ("--method", method, named[0].method),
            ("--dataset", dataset_name, named[0].dataset),
        ):
            if asked not in (None, has):
                raise UserError(f"Run {run!r} is of {has!r}, not {what} {asked!r}.", code=2)
        return _ready(named[0], place)
    fitting = [
        card
        for card in cards
        if (method is None or card.method == method)
        and (dataset_name is None or card.dataset == dataset_name)
    ]
    if not fitting:
        raise _no_run(place, method)
    able = [card for card in fitting if _able(card)]
    if len(able) > 1:
        raise UserError(
            f"Several runs of {place.root} invert images: name one with --run, of "
            f"{', '.join(card.name for card in able)}.",
            code=2,
        )
    return _ready((able or fitting)[0], place)


def _able(card: RunCard) -> bool:
    if unregistered(card) is not None:
        return False
    return issubclass(METHODS[card.method], Inverts) and find_dataset(card.dataset).spec.is_image


def _no_run(place: Experiment, method: str | None) -> UserError:
    more = "" if place.name == DEFAULT_EXPERIMENT else f" --experiment {place.name}"
    more += "" if place.results == DEFAULT_RESULTS else f" --results {place.results}"
    return UserError(
        f"There is no trained run in {place.runs}"
        + (f" of {method}" if method else "")
        + f": bench train --method {method or 'igct'}{more}."
    )


def _ready(card: RunCard, place: Experiment) -> Run:
    reason = unregistered(card)
    if reason is not None:
        raise UserError(f"Run {card.name!r} cannot be used: {reason}.")
    data = find_dataset(card.dataset)
    if not data.spec.is_image:
        raise UserError(
            f"Run {card.name!r} is of {data.name!r}, which has vectors; images are inverted.",
            code=2,
        )
    if card.data_hash != data.train.hash:
        raise UserError(
            f"Run {card.name!r} was trained on other content of {data.name!r} than is here now; "
            "train it again under another --name, or restore the data."
        )
    found = open_run(card, data, place)
    if found is None:
        raise UserError(f"Run {card.name!r} is unfinished: train it to its end first.")
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
