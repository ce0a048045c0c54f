"""Find the run to invert and the images: from files or from the reference split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.data.decode import decode, read_head
from bench.data.find import find_dataset
from bench.data.samples.card import class_names
from bench.data.trees import FILE_MOST
from bench.experiment.place import Experiment
from bench.inversion.plan import cannot_invert
from bench.report.numbers.names import slug
from bench.system.errors import UserError, unknown
from bench.system.files import read_whole
from bench.training.card import RunCard, unregistered
from bench.training.run import Run, fitting_runs, open_run
from methods import METHODS, Inverts

ALL = "all"
"""Every class except the source class."""
_LISTED = 20
"""Classes that a message names."""


@dataclass(frozen=True)
class Images:
    """Images with their classes, and a file name for each."""

    split: Split
    names: tuple[str, ...]


def find_run(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> Run:
    """The requested run, or the only one that can invert images; otherwise UserError."""
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
    """The images of the files, of one class, or the first `samples` of the reference split.

    With a class, only images of that class are taken from the reference split.
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


def read_images(files: Sequence[Path], data: Dataset) -> Tensor:
    """Image files as uint8 (N, C, H, W) of the data set's shape.

    Colour and grey are converted to what the model takes; transparency is dropped. UserError for
    a file that cannot be read or has another size.
    """
    channels, height, width = data.spec.shape
    images = []
    for file in files:
        try:
            content = read_whole(file, FILE_MOST)
            _, size = read_head(content, file)
            if size != (width, height):
                raise UserError(
                    f"{file} has {size[0]}x{size[1]} pixels; a model of {data.name} takes "
                    f"{width}x{height}: resize it first."
                )
            images.append(decode(content, file, channels=channels, to_grey=True).pixels)
        except UserError as error:
            raise UserError(str(error), code=2) from None
        except OSError as error:
            raise UserError(f"Cannot read {file}: {error.strerror}.", code=2) from None
    return torch.from_numpy(np.stack(images)).contiguous()


def class_index(text: str, data: Dataset, option: str) -> int:
    """Index of a class given by name or index; UserError for an unknown one."""
    names = class_names(data, data.spec)
    if text in names:
        return names.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    if len(names) <= _LISTED:
        raise unknown(f"class of {data.name} for {option}", text, names)
    raise UserError(
        f"Unknown class {text!r} of {data.name} for {option}: name one of its {len(names)} "
        f"classes, such as {names[0]!r}, or give an index from 0 to {len(names) - 1}.",
        code=2,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def edit_classes(asked: Sequence[str], source: int, data: Dataset) -> list[int]:
    """Indices of the requested classes, each once; 'all' is every class except the source."""
    found: list[int] = []
    for text in asked:
        if text == ALL and ALL not in data.class_names:
            found += [k for k in range(data.spec.num_classes) if k != source]
        else:
            found.append(class_index(text, data, "--target-class"))
    return list(dict.fromkeys(found))
