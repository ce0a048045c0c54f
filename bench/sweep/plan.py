"""Plan a sweep: the runs of a study or of an experiment, and their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.data import Dataset
from bench.data.find import find_dataset, has_dataset
from bench.evaluation.prepare import Evaluation, TakesLong, nothing_measured, prepare
from bench.experiment.place import Experiment
from bench.experiment.protocols import find_protocol
from bench.experiment.suite import Study, check_seeds, flags
from bench.sweep.cells import Cell, expand
from bench.sweep.request import SweepRequest
from bench.system.errors import UserError, unknown
from bench.system.progress import Say
from bench.training.card import (
    WEIGHTS,
    make_card,
    method_class,
    read_card,
    trained_as_asked,
    trained_runs,
    unregistered,
)
from bench.training.extra_network import (
    ExtraNetwork,
    Role,
    extra_network_of_run,
    find_extra_networks,
)
from bench.training.presets import default_preset
from bench.training.run import Run, no_run, open_run
from bench.training.study import study_cards, weak_card
from methods import METHODS
from methods.samplers import Sampler

DISPLACEMENT = ("displacement",)
"""What a comparison at equal outcome measures too: it is not computed by default."""
UNFINISHED = "it is not trained to its end; bench train does that"


@dataclass(frozen=True)
class Sweep:
    """All cells of one data set, skipped ones included, run by run, and what evaluates them."""

    evaluation: Evaluation
    cells: tuple[Cell, ...]
    samples: int
    study: Study

    @property
    def sampler(self) -> Sampler:
        """The sampler of methods that follow any."""
        return sampler_of(self.study)

    @property
    def runs(self) -> list[Run]:
        """The runs of the cells, each once."""
        return list({cell.run.name: cell.run for cell in self.cells}.values())


def plan_sweeps(
    request: SweepRequest, experiment: Experiment, say: Say
) -> tuple[list[Sweep], list[str]]:
    """The requested sweeps, one per data set, and a message for each skipped run."""
    networks = find_extra_networks(
        experiment, null=request.null_checkpoint, weak=request.weak_checkpoint
    )
    planned: list[tuple[Study, Dataset, list[Run]]] = []
    if request.suite is not None:
        left_out = []
        for study in request.studies:
            data = find_dataset(study.dataset)
            found, missing = _runs_of_study(study, data, experiment, networks)
            planned.append((study, data, found))
            left_out += missing
    else:
        planned, left_out = _runs_here(request, experiment, networks)
    for line in left_out:
        say(f"Left out {line}.")
    if not any(found for _, _, found in planned):  # nothing needs to be prepared
        return [], left_out
    return [_sweep(*each, request, experiment, say) for each in planned], left_out


def _runs_of_study(
    study: Study, data: Dataset, experiment: Experiment, networks: Sequence[ExtraNetwork]
) -> tuple[list[Run], list[str]]:
    """The runs of a suite's study, and a message for each skipped run."""
    found, missing = _imported_runs(study, data, experiment, networks)
    for seed in study.seeds:
        own = list(networks)
        weaker = weak_card(study, data, seed)
        if weaker is not None and not any(network.role == "weak" for network in own):
            if trained_as_asked(weaker, experiment) is None:
                missing.append(f"{weaker.name}: {UNFINISHED}")
            else:
                own.append(extra_network_of_run("weak", weaker.name, experiment.runs / weaker.name))
        for card in study_cards(study, data, seed):
            if METHODS[card.method].trains:
                trained = trained_as_asked(card, experiment)
                if trained is None:
                    missing.append(f"{card.name}: {UNFINISHED}")
                    continue
                card = trained
            elif seed != study.seeds[0]:
                continue  # without training the training seed changes nothing
            ready = open_run(card, data, experiment)
            if ready is not None:
                found.append(ready.join(*own))
    return found, missing


def _imported_runs(
    study: Study, data: Dataset, experiment: Experiment, networks: Sequence[ExtraNetwork]
) -> tuple[list[Run], list[str]]:
    """The imported runs of a suite's study, and a message for each one that is missing."""
    named: dict[Role, str | None] = {"null": study.null_run, "weak": study.weak_run}
    for network in networks:  # of an option, which counts more than the suite
        named[network.role] = None
    extra = {role: name for role, name in named.items() if name}
    missing = [
        f"{name}: not imported yet; run bench import {name}.pkl --as {name} --dataset "
        f"{study.dataset}{flags(experiment)}"
        for name in dict.fromkeys((*study.runs, *extra.values()))
        if not (experiment.runs / name / WEIGHTS).exists()
    ]
    if missing:
        return [], missing
    own = [extra_network_of_run(role, name, experiment.runs / name) for role, name in extra.items()]
    found = []
    for name in study.runs:
        card = read_card(experiment.runs / name)
        if card.dataset != study.dataset:
            raise UserError(
                f"Run {name!r} was imported for the data set {card.dataset!r}, and the suite has "
                f"it on {study.dataset!r}: import it with --dataset {study.dataset}."
            )
        ready = open_run(card, data, experiment)
        if ready is not None:
            found.append(ready.join(*networks, *own))
    return found, missing


def _runs_here(
    request: SweepRequest, experiment: Experiment, networks: Sequence[ExtraNetwork]
) -> tuple[list[tuple[Study, Dataset, list[Run]]], list[str]]:
    """The runs of an experiment per study, and a message for each skipped run.

    Methods without training are included if they have a preset and the request names no runs.
    """
    cards = [
        card
        for card in trained_runs(experiment)
        if (not request.runs or card.name in request.runs)
        and (not request.methods or card.method in request.methods)
    ]
    reasons = {card.name: unregistered(card) for card in cards}
    left_out = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    planned = []
    for study in request.studies:
        data = find_dataset(study.dataset)
        own = [c for c in cards if c.dataset == study.dataset and reasons[c.name] is None]
        for method in sorted(METHODS):
            cls = METHODS[method]
            # A user's model is for any data set, and lists none: it must be named.
            named = method in request.methods
            fits = default_preset(cls, data.spec) if named else study.dataset in [*cls.presets]
            if not request.runs and not cls.trains and fits:
                own.append(make_card(method, data=data))
        found = []
        for card in own:
            if request.methods and card.method not in request.methods:
                continue
            if card.data_hash not in ("", data.train.hash):
                raise UserError(
                    f"Run {card.name!r} was trained on other content of {study.dataset!r} than is "
                    "here now: train it again under another --name, or restore the data."
                )
            ready = open_run(card, data, experiment)
            if ready is None:
                left_out.append(f"{card.name}: {UNFINISHED}")
            else:
                found.append(ready.join(*networks))
        if found:
            planned.append((study, data, found))
    return planned, left_out


def sampler_of(study: Study) -> Sampler:
    """The sampler that a study asks for."""
    return Sampler(study.sampler, study.grid)


def _sweep(
    study: Study,
    data: Dataset,
    found: Sequence[Run],
    request: SweepRequest,
    experiment: Experiment,
    say: Say,
) -> Sweep:
    try:
        evaluation = prepare(
            request.reference(data),
            experiment.cache,
            metrics=study.metrics,
            also=DISPLACEMENT if study.matched or study.match_nfe else (),
            extractors=study.extractors,
            protocol=study.protocol,
            weights=request.weights,
            download=request.download,
            device=request.device,
            say=say,
            patient=not request.dry_run,
        )
    except TakesLong:
        say(f"{data.name}: features of real images are to be computed first, once.")
        evaluation = nothing_measured(request.reference(data))
    of_protocol = find_protocol(study.protocol).samples if study.protocol else None
    samples = study.samples or of_protocol or data.default_samples
    seeds = check_seeds(study.sampling_seeds)
    cells: list[Cell] = []
    sampler = sampler_of(study)
    if study.inversion and not sampler.is_usual:
        raise UserError("--inversion follows Heun's steps: drop --sampler and --grid.", code=2)
    for run in found:
        if run.method.takes_samplers:
            run = replace(run, method=run.method.with_sampler(sampler))
        rules = request.rules(study, run, experiment, say)
        own = expand(
            run, study.guidance, study.steps, seeds, samples, rules,
            labels=study.sample_labels, sampler=sampler,
        )  # fmt: skip
        cells += sorted(own, key=lambda cell: cell.steps, reverse=True)  # long ones first
    return Sweep(evaluation, tuple(cells), samples, study)


def swept_datasets(
    experiment: Experiment, methods: Sequence[str], runs: Sequence[str] = ()
) -> list[str]:
    """The data sets of all trained runs, and of the presets of methods that need no training.

    With `runs`, only the data sets of these runs. UserError for an unknown run.
    """
    for method in methods:
        method_class(method)
    cards = trained_runs(experiment)
    if runs and not cards:
        raise no_run(experiment)
    for name in runs:
        if name not in [card.name for card in cards]:
            raise unknown("run", name, [card.name for card in cards])
    names = [c.dataset for c in cards if (not runs or c.name in runs) and has_dataset(c.dataset)]
    for method in () if runs else methods:
        cls = method_class(method)
        if not cls.trains:
            names += [preset.dataset for preset in cls.presets.values()]
    return list(dict.fromkeys(names))
