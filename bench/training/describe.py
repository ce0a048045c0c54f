"""What a training run would be: its settings, parameters, images and hours, without training it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.suite import Study
from bench.system.errors import UserError
from bench.system.progress import duration
from bench.training.price import NoRoom, parameters, train_rate
from bench.training.runs import RunCard, make_card, method_class
from bench.training.study import preset_for, weak_card
from methods import DataSpec

_SHOWN = {"name", "method", "dataset", "preset", "config", "train", "seed"}


def data_or_stand_in(study: Study) -> Dataset:
    """The study's data set or, where it is not here, random images of its preset's shape."""
    try:
        return find_dataset(study.dataset)
    except UserError:
        for method in study.methods:
            preset = method_class(method).presets.get(study.preset or study.dataset)
            if preset is not None and preset.dataset == study.dataset and preset.shape is not None:
                assert preset.num_classes is not None
                return RandomImages(DataSpec(study.dataset, preset.shape, preset.num_classes))
        raise


def describe(study: Study, device: torch.device, precision: str) -> Iterator[str]:
    """A study's runs in lines of text."""
    data = data_or_stand_in(study)
    if isinstance(data, RandomImages):
        yield (
            f"{study.dataset} is not here yet, and needed for training: bench data prepare SOURCE "
            f"--dataset {study.dataset}."
        )
    for method in study.methods:
        card = make_card(
            method,
            data=data,
            preset=preset_for(study, method),
            seed=study.seeds[0],
            overrides=study.set if method_class(method).trains else None,
            precision=precision,
        )
        yield card.model_dump_json(indent=2, include=_SHOWN)
        yield f"{card.name}: {_cost(card, data, device)}"
    weaker = weak_card(study, data, study.seeds[0])
    if weaker is not None:
        weaker = weaker.model_copy(update={"precision": precision})
        yield weaker.model_dump_json(indent=2, include=_SHOWN)
        yield f"{weaker.name}: {_cost(weaker, data, device)}"


def _cost(card: RunCard, data: Dataset, device: torch.device) -> str:
    if card.train is None:
        return "nothing to train."
    images = card.train.iterations * card.train.batch
    size = f"{parameters(card, data):,} parameters, {images:,} images"
    try:
        rate = train_rate(card, data, device)
    except NoRoom as problem:
        return f"{size}; how long it takes was not measured: {problem}."
    kind = "random images" if isinstance(data, RandomImages) else "its own data"
    return (
        f"{size}, about {duration(rate.seconds(card.train))} at the rate measured now on {device}: "
        f"{rate.images_a_second(card.train):,.3g} images a second in {card.precision}, from "
        f"{rate.rows} rows of {kind} a forward."
    )
