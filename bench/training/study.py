"""Training of one run with its prerequisites, or of all runs of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.experiment.place import DEFAULT_PRECISION, Experiment
from bench.experiment.provenance import provenance
from bench.experiment.suite import Study
from bench.system.errors import UserError, unknown
from bench.system.failures import explained
from bench.system.progress import SILENT, Reporter
from bench.training.card import (
    WEIGHTS,
    RunCard,
    find_preset,
    make_card,
    make_method,
    method_class,
)
from bench.training.initial import (
    NO_INIT,
    FoundWeights,
    find_weights,
    make_teacher,
    network_settings,
    source_preset,
    teacher_card,
)
from bench.training.loop import train
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


def train_run(
    method: str,
    data: Dataset,
    trainer: Trainer,
    *,
    preset: str | None = None,
    seed: int = 0,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    init_from: str | None = None,
    teacher: str | None = None,
) -> RunCard:
    """Train one run; if the run that it starts from or distils is missing, train that first.

    That run shares the network's settings in `overrides`, so that its weights fit. `teacher` and
    `init_from` name a run, a folder or a file. By default they are runs of the method that the
    method and its preset name; a method that starts from its teacher starts from `teacher`.
    """
    cls = method_class(method)
    _, found = find_preset(cls, data.spec, preset)
    overrides = overrides or {}
    experiment, fabric = trainer.experiment, trainer.fabric
    if teacher is not None and cls.wants_teacher is None:
        raise UserError(f"{method} distils nothing: drop --teacher.", code=2)
    # Before anything else is trained, since this checks the settings.
    card = make_card(method, data=data, preset=preset, seed=seed, name=name, overrides=overrides)

    def source(option: str, named: str | None, owner: str) -> FoundWeights:
        """The weights named by `option`, by default of a run of `owner`, trained if missing."""
        if named is None:
            own_preset = source_preset(owner, preset)
            named = make_card(owner, data=data, preset=own_preset, seed=seed).name
            if not (experiment.runs / named / WEIGHTS).exists():
                trainer.reporter.say(
                    f"{method} on {data.name} distils {named}, which is trained first."
                    if option == "--teacher"
                    else f"{method} on {data.name} starts from the weights of {named}, which is "
                    f"trained first (--init-from {NO_INIT} starts from scratch)."
                )
                shared = network_settings(overrides)
                train_run(owner, data, trainer, preset=own_preset, seed=seed, overrides=shared)
        return find_weights(option, named, experiment)

    taught = start = frozen = None
    if cls.wants_teacher is not None:
        taught = source("--teacher", teacher, cls.wants_teacher)
        # A file has no card: its network is that of the run it replaces.
        own = taught.card or teacher_card(cls.wants_teacher, data, preset, overrides)
        frozen = make_teacher(cls, own, data, taught.weights, fabric.device)
    if init_from is not None:
        start = None if init_from == NO_INIT else source("--init-from", init_from, "")
    elif found.init_from is not None:
        same = taught is not None and found.init_from == cls.wants_teacher
        start = taught if same else source("--init-from", None, found.init_from)
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
    initial = make_method(card, data).initial_weights(start.weights) if start else None
    folder = experiment.runs / card.name
    with explained(f"Training of {card.name} stopped in {folder}"), lost_process_explained(fabric):
        train(
            card, data, folder, fabric=fabric, reporter=trainer.reporter, initial=initial,
            teacher=frozen, compiler=trainer.compiler, on_nan=trainer.on_nan,
        )  # fmt: skip
    return card


def train_study(study: Study, trainer: Trainer) -> list[RunCard]:
    """Train every method and seed of a study that needs training, and the weaker networks."""
    data = find_dataset(study.dataset)
    cards = []
    for seed in study.seeds:
        runs: list[tuple[str, str | None, Mapping[str, Any]]]
        runs = [(m, None, study.set) for m in study.methods if method_class(m).trains]
        weaker = weak_card(study, data, seed)
        if weaker is not None:
            runs.append((EDM.name, weaker.name, _weak_settings(study)))
        for method, name, overrides in runs:
            cards.append(
                train_run(
                    method, data, trainer, preset=preset_for(study, method), seed=seed, name=name,
                    overrides=overrides,
                )
            )  # fmt: skip
    return cards


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
    """The study's preset for methods that have it; None, the data set's own, for others."""
    if study.preset is None:
        return None
    owners = [m for m in study.methods if study.preset in method_class(m).presets]
    if not owners:
        raise unknown(
            "preset", study.preset, {p for m in study.methods for p in METHODS[m].presets}
        )
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
