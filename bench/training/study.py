"""Which runs a command or a study trains, in which order, and the training of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import Dataset
from bench.experiment.place import DEFAULT_PRECISION, Experiment
from bench.experiment.provenance import provenance
from bench.experiment.suite import Study
from bench.system.errors import UserError, unknown
from bench.system.failures import explained
from bench.system.progress import SILENT, Reporter, Tick
from bench.training.card import (
    WEIGHTS,
    RunCard,
    make_card,
    make_method,
    method_class,
)
from bench.training.initial import (
    NO_INIT,
    FoundWeights,
    check_frequencies,
    find_weights,
    has_preset,
    make_teacher,
    network_settings,
    source_preset,
    teacher_card,
)
from bench.training.loop import train
from bench.training.presets import AUTO, described_choice, find_preset
from bench.training.processes import lost_process_explained
from bench.training.watch import OnNan
from methods import EDM, METHODS

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Trainer:
    """Where and how runs are trained."""

    experiment: Experiment
    fabric: Fabric
    reporter: Reporter = SILENT
    precision: str = DEFAULT_PRECISION
    compiler: str | None = None
    """A backend of torch.compile."""
    on_nan: OnNan = "stop"
    loggers: Sequence[str] = ()
    tick: Tick = lambda _: None
    """Counts the steps of the runs."""

    def weights(self, run: str) -> Path:
        """The file of a run's weights."""
        return self.experiment.runs / run / WEIGHTS


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to be trained.

    `teacher` and `init_from` name a run, a folder or a file. By default they are runs of the method
    that the method and its preset name; a method that starts from its teacher starts from
    `teacher`.
    """

    method: str
    data: Dataset
    preset: str | None = None
    seed: int = 0
    name: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    teacher: str | None = None

    def card(self) -> RunCard:
        """Its card, without what is known only when it starts. UserError for bad settings."""
        return make_card(
            self.method, data=self.data, preset=self.preset, seed=self.seed, name=self.name,
            overrides=self.overrides,
        )  # fmt: skip

    def prerequisites(self) -> dict[str, RunRequest]:
        """The runs that it starts from by default, by "--init-from" and "--teacher".

        They share the network's settings in `overrides`, so that their weights fit.
        """
        cls = method_class(self.method)
        _, found = find_preset(cls, self.data.space, self.preset)
        owners: dict[str, str] = {}
        if cls.wants_teacher is not None and self.teacher is None:
            owners["--teacher"] = cls.wants_teacher
        if self.init_from is None and found.init_from not in (None, cls.wants_teacher):
            owners["--init-from"] = str(found.init_from)
        return {
            option: RunRequest(
                method=owner,
                data=self.data,
                preset=source_preset(owner, self.preset),
                seed=self.seed,
                overrides=network_settings(self.overrides),
            )
            for option, owner in owners.items()
        }


def with_prerequisites(requests: Iterable[RunRequest], trainer: Trainer) -> list[RunRequest]:
    """The runs, each once and after those that it starts from, which are added if missing.

    UserError for bad settings, before anything is trained.
    """
    wanted: dict[str, RunRequest] = {}
    for request in requests:
        if request.data.statistics is not None:
            raise UserError(
                f"The data set {request.data.name!r} has statistics and no images to train on: "
                "name another with --dataset.",
                code=2,
            )
        card = request.card()
        if card.name in wanted and wanted[card.name].card() != card:
            raise UserError(
                f"The run {card.name!r} is wanted twice with different settings: train them in two "
                "experiments.",
                code=2,
            )
        wanted[card.name] = request
    ordered: dict[str, RunRequest] = {}

    def add(name: str, request: RunRequest) -> None:
        if name in ordered:
            return
        if request.teacher is not None and method_class(request.method).wants_teacher is None:
            raise UserError(f"{request.method} distils nothing: drop --teacher.", code=2)
        for option, source in request.prerequisites().items():
            needed = source.card().name
            if needed in wanted:
                add(needed, wanted[needed])
            elif needed not in ordered and not trainer.weights(needed).exists():
                on = f"{request.method} on {request.data.name}"
                trainer.reporter.say(
                    f"{on} distils {needed}, which is trained first."
                    if option == "--teacher"
                    else f"{on} starts from the weights of {needed}, which is trained first "
                    f"(--init-from {NO_INIT} starts from scratch)."
                )
                if kept := request.overrides.keys() - source.overrides.keys():
                    settings = source.card().train
                    length = f" ({settings.iterations:,} iterations)" if settings else ""
                    trainer.reporter.say(
                        f"Not set for {needed}, which is trained with its preset{length}: "
                        f"{', '.join(sorted(kept))}."
                    )
                add(needed, source)
        ordered[name] = request

    for name, request in wanted.items():
        add(name, request)
    choices: dict[str, dict[str, None]] = {}
    for run in ordered.values():
        choice = described_choice(run.method, run.data.space, run.preset)
        choices.setdefault(choice, {})[run.method] = None
    for choice, methods in choices.items():
        if choice:
            trainer.reporter.say(f"{', '.join(methods)} on {choice}")
    return list(ordered.values())


def train_run(request: RunRequest, trainer: Trainer) -> RunCard:
    """Train one run. UserError if a run that it starts from is missing."""
    cls = method_class(request.method)
    experiment, fabric, data = trainer.experiment, trainer.fabric, request.data
    card = request.card()
    needed = request.prerequisites()

    def source(option: str, named: str | None) -> FoundWeights:
        return find_weights(option, named or needed[option].card().name, experiment)

    taught = start = frozen = None
    if cls.wants_teacher is not None:
        taught = source("--teacher", request.teacher)
        # A file has no card: its network is that of the run it replaces.
        own = taught.card or teacher_card(
            cls.wants_teacher, data, request.preset, request.overrides
        )
        frozen = make_teacher(cls, own, data, taught.weights, fabric.device)
    _, preset = find_preset(cls, data.space, request.preset)
    if request.init_from is not None:
        named = request.init_from
        start = None if named == NO_INIT else source("--init-from", named)
    elif preset.init_from is not None:
        same = taught is not None and preset.init_from == cls.wants_teacher
        start = taught if same else source("--init-from", None)
    card = card.model_copy(
        update={
            "precision": trainer.precision,
            "init_run": start.run if start else "",
            "init_checkpoint": start.checkpoint if start else "",
            "teacher_run": taught.run if taught else "",
            "teacher_checkpoint": taught.checkpoint if taught else "",
            "provenance": provenance()
            | ({"compile": trainer.compiler} if trainer.compiler else {}),
        }
    )
    if start:
        check_frequencies(card, start)
    initial = make_method(card, data).initial_weights(start.weights) if start else None
    folder = experiment.runs / card.name
    with explained(f"Training of {card.name} stopped in {folder}"), lost_process_explained(fabric):
        train(
            card, data, folder, fabric=fabric, reporter=trainer.reporter, initial=initial,
            teacher=frozen, compiler=trainer.compiler, on_nan=trainer.on_nan,
            loggers=trainer.loggers, tick=trainer.tick,
        )  # fmt: skip
    return card


def study_requests(study: Study, data: Dataset) -> list[RunRequest]:
    """Every method and seed of a study that needs training, and the weaker networks."""
    requests = []
    for seed in study.seeds:
        runs: list[tuple[str, str | None, Mapping[str, Any]]]
        runs = [(m, None, study.set) for m in study.methods if method_class(m).trains]
        weaker = weak_card(study, data, seed)
        if weaker is not None:
            runs.append((EDM.name, weaker.name, _weak_settings(study)))
        requests += [
            RunRequest(
                method=method, data=data, preset=preset_for(study, method), seed=seed, name=name,
                overrides=overrides,
            )
            for method, name, overrides in runs
        ]  # fmt: skip
    return requests


def study_cards(study: Study, data: Dataset, seed: int) -> list[RunCard]:
    """The cards of a study's methods for a training seed, in their order."""
    return [
        make_card(
            method,
            data=data,
            preset=preset_for(study, method),
            seed=seed,
            overrides=study.set if method_class(method).trains else None,
        )
        for method in study.methods
    ]


def preset_for(study: Study, method: str) -> str | None:
    """The study's preset for methods that have it; None, what fits the data, for others."""
    if study.preset is None:
        return None
    owners = [m for m in study.methods if has_preset(m, study.preset)]
    if not owners:
        known = {p for m in study.methods for p in METHODS[m].presets}
        raise unknown("preset", study.preset, {*known, AUTO})
    return study.preset if method in owners else None


def weak_card(study: Study, data: Dataset, seed: int) -> RunCard | None:
    """The weaker run of a study and training seed, "<edm run>-weak"; None without one."""
    if study.weak is None:
        return None
    preset, overrides = preset_for(study, EDM.name), _weak_settings(study)
    card = make_card(EDM.name, data=data, preset=preset, seed=seed, overrides=overrides)
    return card.model_copy(update={"name": f"{card.name}-weak"})


def _weak_settings(study: Study) -> dict[str, Any]:
    """The overrides of a study's weaker run."""
    return {**study.set, **(study.weak.set if study.weak else {})}
