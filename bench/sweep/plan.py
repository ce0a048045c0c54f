"""What is swept: the runs of a study or of an experiment, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.evaluation.prepare import Evaluation, TakesLong, Tell, nothing_measured, prepare
from bench.experiment.place import Experiment
from bench.experiment.protocols import find_protocol
from bench.experiment.rules import ChosenRule, study_rules
from bench.experiment.seeds import check_seeds
from bench.experiment.suite import Study
from bench.sweep.cells import Cell, expand
from bench.system.errors import UserError
from bench.training.extra_network import ExtraNetwork, extra_network_of_run
from bench.training.run import Run, open_run
from bench.training.runs import (
    make_card,
    method_class,
    trained_as_asked,
    trained_runs,
    unregistered,
)
from bench.training.study import preset_for, weak_card
from methods import METHODS

UNFINISHED = "it is not trained to its end; bench train does that"


def identical(data: Dataset) -> Dataset:
    """The data set itself."""
    return data


ChooseRules = Callable[[Study, Run, Experiment, Tell], Sequence[ChosenRule]]


def untuned(study: Study, *_: object) -> Sequence[ChosenRule]:
    """The rules of a study as it names them."""
    return study_rules(study)


@dataclass(frozen=True)
class Equipment:
    """What a sweep works with beside its runs: for extractors, and for the branches of guidance."""

    weights: Path | None = None
    """File or folder of an extractor's weights."""
    download: bool = False
    device: torch.device | str = "cpu"
    tell: Tell = lambda _: None
    """Gets a sentence before and during what takes long."""
    seconds: tuple[ExtraNetwork, ...] = ()
    """Networks that edm runs have beside their own."""
    patient: bool = True
    """False for a plan only, which is then made without what takes long to prepare."""
    side: Callable[[Dataset], Dataset] = identical
    """What samples are compared with, for a data set: itself, but for the tuner."""
    rules: ChooseRules = untuned
    """Gives the rules of a run, with tuned knobs where the study asks for them."""


@dataclass(frozen=True)
class Sweep:
    """All cells of one data set, run by run, and what evaluates them."""

    evaluation: Evaluation
    targets: tuple[tuple[Run, tuple[Cell, ...]], ...]
    samples: int
    study: Study

    @property
    def cells(self) -> list[Cell]:
        """All cells, skipped ones included."""
        return [cell for _, cells in self.targets for cell in cells]


def plan_study(
    study: Study, experiment: Experiment, equipment: Equipment
) -> tuple[Sweep, list[str]]:
    """The sweep of a study, and a sentence for each of its runs that is left out."""
    data = find_dataset(study.dataset)
    found, missing = [], []
    for seed in study.seeds:
        own = equipment
        weaker = weak_card(study, data, seed)
        if weaker is not None and not any(s.role == "weak" for s in own.seconds):
            if trained_as_asked(weaker, experiment) is None:
                missing.append(f"{weaker.name}: {UNFINISHED}")
            else:
                second = extra_network_of_run("weak", weaker.name, experiment.runs / weaker.name)
                own = replace(own, seconds=(*own.seconds, second))
        for method in study.methods:
            cls = method_class(method)
            card = make_card(
                method,
                data=data,
                preset=preset_for(study, method),
                seed=seed,
                overrides=study.set if cls.trains else None,
            )
            if cls.trains:
                trained = trained_as_asked(card, experiment)
                if trained is None:
                    missing.append(f"{card.name}: {UNFINISHED}")
                    continue
                card = trained
            elif seed != study.seeds[0]:
                continue  # without training there is nothing that a training seed could change
            ready = open_run(card, data, experiment)
            if ready is not None:
                found.append(ready.join(*own.seconds))
    return _sweep(study, data, found, experiment, equipment), missing


def plan_experiment(
    studies: Mapping[str, Study],
    experiment: Experiment,
    equipment: Equipment,
    *,
    methods: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
) -> tuple[list[Sweep], list[str]]:
    """Sweeps of all runs of an experiment, a data set each, and a sentence a run left out.

    `studies` gives the settings by data set name; its keys limit the data sets. Methods without
    training join in where they have a preset, unless `runs` names the runs to sweep.
    """
    cards = [card for card in trained_runs(experiment) if runs is None or card.name in runs]
    reasons = {card.name: unregistered(card) for card in cards}
    left_out = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    sweeps = []
    for name, study in studies.items():
        data = find_dataset(name)
        own = [c for c in cards if c.dataset == name and reasons[c.name] is None]
        for method in sorted(METHODS):
            cls = METHODS[method]
            if runs is None and not cls.trains and name in cls.presets:
                own.append(make_card(method, data=data))
        found = []
        for card in own:
            if methods is not None and card.method not in methods:
                continue
            if card.data_hash not in ("", data.train.hash):
                raise UserError(
                    f"Run {card.name!r} was trained on other content of {name!r} than is here "
                    f"now; train it again under another --name, or restore the data."
                )
            ready = open_run(card, data, experiment)
            if ready is None:
                left_out.append(f"{card.name}: {UNFINISHED}")
            else:
                found.append(ready.join(*equipment.seconds))
        if found:
            sweeps.append(_sweep(study, data, found, experiment, equipment))
    return sweeps, left_out


def _sweep(
    study: Study,
    data: Dataset,
    found: Sequence[Run],
    experiment: Experiment,
    equipment: Equipment,
) -> Sweep:
    try:
        evaluation = prepare(
            equipment.side(data),
            experiment.cache,
            metrics=study.metrics,
            extractors=study.extractors,
            protocol=study.protocol,
            weights=equipment.weights,
            download=equipment.download,
            device=equipment.device,
            tell=equipment.tell,
            patient=equipment.patient,
        )
    except TakesLong:
        equipment.tell(f"{data.name}: features of real images are to be computed first, once.")
        evaluation = nothing_measured(equipment.side(data))
    of_protocol = find_protocol(study.protocol).samples if study.protocol else None
    samples = study.samples or of_protocol or data.default_samples
    seeds = check_seeds(study.sampling_seeds)
    targets = []
    for t in found:
        rules = equipment.rules(study, t, experiment, equipment.tell)
        targets.append((t, tuple(expand(t, study.guidance, study.steps, seeds, samples, rules))))
    return Sweep(evaluation, tuple(targets), samples, study)
