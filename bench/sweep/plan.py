"""Studies to training runs and sweeps: what a command does, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.evaluation.prepare import Evaluation, TakesLong, Tell, nothing_measured, prepare
from bench.experiment.place import DEFAULT_PRECISION, Experiment
from bench.experiment.protocols import find_protocol
from bench.experiment.provenance import provenance
from bench.experiment.rules import ChosenRule, study_rules
from bench.experiment.seeds import check_seeds
from bench.experiment.suite import Study
from bench.sweep.cells import Cell, Target, expand, target
from bench.sweep.second_network import SecondNetwork, of_run, weak_card, weak_settings
from bench.system.errors import UserError, unknown
from bench.system.failures import told
from bench.training.loop import train
from bench.training.processes import others_watched
from bench.training.runs import (
    WEIGHTS,
    RunCard,
    find_preset,
    make_card,
    make_method,
    method_class,
    trained_as_asked,
    trained_runs,
    unregistered,
)
from bench.training.sources import (
    NO_INIT,
    Source,
    find_source,
    make_teacher,
    source_preset,
    teacher_card,
)
from bench.training.watch import OnNan
from methods import EDM, METHODS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

UNFINISHED = "it is not trained to its end; bench train does that"


def train_run(
    method: str,
    data: Dataset,
    experiment: Experiment,
    fabric: Fabric,
    console: Console | None,
    *,
    preset: str | None = None,
    seed: int = 0,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    precision: str = DEFAULT_PRECISION,
    init_from: str | None = None,
    teacher: str | None = None,
    compiler: str | None = None,
    on_nan: OnNan = "stop",
) -> RunCard:
    """Train one run; a run that it starts from or distils is trained first if it is missing.

    That run takes the network's settings from `overrides`, without which its weights would not
    fit; one that is trained already is taken as it is. `teacher` and `init_from` name a run, a
    folder or a file; by default they are the run of the method that the method and its preset
    name, and a method that starts from what it distils starts from `teacher`.
    """
    cls = method_class(method)
    _, found = find_preset(cls, data.spec, preset)
    overrides = overrides or {}
    if teacher is not None and cls.wants_teacher is None:
        raise UserError(f"{method} distils nothing: leave --teacher away.", code=2)

    def source(option: str, named: str | None, owner: str, verb: str) -> Source:
        if named is None:
            named = _prerequisite(
                method, verb, owner, data, experiment, fabric, console, preset=preset, seed=seed,
                overrides=overrides, precision=precision, compiler=compiler, on_nan=on_nan,
            )  # fmt: skip
        return find_source(option, named, experiment)

    # A mistake in the settings must not wait for the training of what this run starts from.
    make_card(method, data=data, preset=preset, seed=seed, name=name, overrides=overrides)
    taught = start = None
    if cls.wants_teacher is not None:
        taught = source("--teacher", teacher, cls.wants_teacher, "distils")
    if init_from is not None:
        start = None if init_from == NO_INIT else find_source("--init-from", init_from, experiment)
    elif found.init_from is not None:
        same = taught is not None and found.init_from == cls.wants_teacher
        start = taught if same else source("--init-from", None, found.init_from, "starts from")
    card = make_card(
        method,
        data=data,
        preset=preset,
        seed=seed,
        name=name,
        overrides=overrides,
        precision=precision,
        init_run=start.run if start else "",
        init_checkpoint=start.checkpoint if start else "",
        teacher_run=taught.run if taught else "",
        teacher_checkpoint=taught.checkpoint if taught else "",
    )
    made_with = provenance() | ({"compile": compiler} if compiler else {})
    card = card.model_copy(update={"provenance": made_with})
    frozen = None
    if taught is not None and cls.wants_teacher is not None:
        # A file has no card: its network is that of the run it stands for.
        own = taught.card or teacher_card(cls.wants_teacher, data, preset, overrides)
        frozen = make_teacher(cls, own, data, taught.weights, fabric.device)
    initial = make_method(card, data).initial_weights(start.weights) if start else None
    folder = experiment.runs / card.name
    with told(f"Training of {card.name} stopped in {folder}"), others_watched(fabric):
        train(
            card, data, folder, fabric=fabric, console=console, initial=initial,
            teacher=frozen, compiler=compiler, on_nan=on_nan,
        )  # fmt: skip
    return card


def _prerequisite(
    method: str,
    verb: str,
    source: str,
    data: Dataset,
    experiment: Experiment,
    fabric: Fabric,
    console: Console | None,
    *,
    preset: str | None,
    seed: int,
    overrides: Mapping[str, Any],
    precision: str,
    compiler: str | None,
    on_nan: OnNan,
) -> str:
    """The name of the run of `source` that `method` needs, which is trained if it is missing."""
    own_preset = source_preset(source, preset)
    needed = make_card(source, data=data, preset=own_preset, seed=seed)
    if not (experiment.runs / needed.name / WEIGHTS).exists():
        if console is not None:
            what = f"the weights of {needed.name}" if verb == "starts from" else needed.name
            scratch = f" (--init-from {NO_INIT} starts from scratch)"
            console.print(
                f"{method} on {data.name} {verb} {what}, which is trained first"
                f"{scratch if verb == 'starts from' else ''}.",
                highlight=False,
                soft_wrap=True,
            )
        shared = {key: value for key, value in overrides.items() if key.startswith("net.")}
        train_run(
            source, data, experiment, fabric, console,
            preset=own_preset, seed=seed, overrides=shared, precision=precision,
            compiler=compiler, on_nan=on_nan,
        )  # fmt: skip
    return needed.name


def train_study(
    study: Study,
    experiment: Experiment,
    fabric: Fabric,
    console: Console | None,
    precision: str = DEFAULT_PRECISION,
    compiler: str | None = None,
    on_nan: OnNan = "stop",
) -> list[RunCard]:
    """Train every method and seed of a study that has something to train, and weaker networks."""
    data = find_dataset(study.dataset)
    cards = []
    for seed in study.seeds:
        runs: list[tuple[str, str | None, Mapping[str, Any]]]
        runs = [(m, None, study.set) for m in study.methods if method_class(m).trains]
        weaker = weak_card(study, data, seed, preset_for(study, EDM.name))
        if weaker is not None:
            runs.append((EDM.name, weaker.name, weak_settings(study)))
        for method, name, overrides in runs:
            cards.append(
                train_run(
                    method, data, experiment, fabric, console,
                    preset=preset_for(study, method), seed=seed, name=name, overrides=overrides,
                    precision=precision, compiler=compiler, on_nan=on_nan,
                )
            )  # fmt: skip
    return cards


def preset_for(study: Study, method: str) -> str | None:
    """The study's preset, for the methods that have it; the data set's own for the others."""
    if study.preset is None:
        return None
    owners = [m for m in study.methods if study.preset in method_class(m).presets]
    if not owners:
        raise unknown(
            "preset", study.preset, {p for m in study.methods for p in METHODS[m].presets}
        )
    return study.preset if method in owners else None


def identical(data: Dataset) -> Dataset:
    """The data set itself."""
    return data


ChooseRules = Callable[[Study, Target, Experiment, Tell], Sequence[ChosenRule]]


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
    seconds: tuple[SecondNetwork, ...] = ()
    """Networks that edm runs have beside their own."""
    patient: bool = True
    """False for a plan only, which is then made without what takes long to prepare."""
    side: Callable[[Dataset], Dataset] = identical
    """What samples are compared with, for a data set: itself, but for the tuner."""
    rules: ChooseRules = untuned
    """Gives the rules of a run, with tuned knobs where the study asks for them."""

    def join(self, found: Target) -> Target:
        """`found` with the second networks that serve it, if any."""
        for second in self.seconds:
            found = second.join(found)
        return found


@dataclass(frozen=True)
class Sweep:
    """All cells of one data set, run by run, and what evaluates them."""

    evaluation: Evaluation
    targets: tuple[tuple[Target, tuple[Cell, ...]], ...]
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
        weaker = weak_card(study, data, seed, preset_for(study, EDM.name))
        if weaker is not None and not any(s.role == "weak" for s in own.seconds):
            if trained_as_asked(weaker, experiment) is None:
                missing.append(f"{weaker.name}: {UNFINISHED}")
            else:
                second = of_run("weak", weaker.name, experiment.runs / weaker.name)
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
            ready = target(card, data, experiment)
            if ready is not None:
                found.append(own.join(ready))
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
            ready = target(card, data, experiment)
            if ready is None:
                left_out.append(f"{card.name}: {UNFINISHED}")
            else:
                found.append(equipment.join(ready))
        if found:
            sweeps.append(_sweep(study, data, found, experiment, equipment))
    return sweeps, left_out


def _sweep(
    study: Study,
    data: Dataset,
    found: Sequence[Target],
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
