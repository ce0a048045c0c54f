"""Studies to training runs and sweeps: what a command does, in order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor

from bench.checkpoint import load_weights
from bench.data import Dataset
from bench.errors import UserError, unknown
from bench.evaluate import Evaluation, prepare
from bench.experiment import DEFAULT_PRECISION, Experiment
from bench.files import sha256
from bench.plan import Cell, Target, expand, target
from bench.provenance import provenance
from bench.runs import (
    CARD,
    WEIGHTS,
    RunCard,
    dataset,
    differences,
    find_preset,
    make_card,
    make_method,
    method_class,
    read_card,
    trained_runs,
    unregistered,
)
from bench.suite import Study
from bench.train import train
from methods import METHODS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

NO_INIT = "none"
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed")
UNFINISHED = "it is not trained to its end; bench train does that"


@dataclass(frozen=True)
class Start:
    """Initial weights of a run, under the names of their source, and where they came from."""

    run: str
    checkpoint: str
    weights: Mapping[str, Tensor]


def make_fabric(device: str, precision: str) -> Fabric:
    """Devices and processes: one process, or what torchrun has started."""
    from lightning_fabric import Fabric

    for kind, value, allowed in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        fabric = Fabric(
            accelerator=device,
            devices=local,
            num_nodes=max(world // local, 1),
            strategy="ddp" if world > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"Cannot use device {device!r} with precision {precision!r}: {error}", code=2
        ) from None
    return fabric


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
) -> RunCard:
    """Train one run; a run that it starts from by its preset is trained first if it is missing.

    That run takes the network's settings from `overrides`, without which its weights would not
    fit; one that is trained already is taken as it is.
    """
    start = _start(
        method, data, experiment, fabric, console,
        preset=preset, seed=seed, overrides=overrides or {}, precision=precision,
        init_from=init_from,
    )  # fmt: skip
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
    ).model_copy(update={"provenance": provenance()})
    initial = make_method(card, data).initial_weights(start.weights) if start else None
    folder = experiment.runs / card.name
    train(card, data, folder, fabric=fabric, console=console, initial=initial)
    return card


def _start(
    method: str,
    data: Dataset,
    experiment: Experiment,
    fabric: Fabric,
    console: Console | None,
    *,
    preset: str | None,
    seed: int,
    overrides: Mapping[str, Any],
    precision: str,
    init_from: str | None,
) -> Start | None:
    _, found = find_preset(method_class(method), data.spec, preset)
    if init_from is not None:
        return None if init_from == NO_INIT else _start_from(init_from, experiment)
    if found.init_from is None:
        return None
    source = found.init_from
    source_preset = preset if preset in method_class(source).presets else None
    needed = make_card(source, data=data, preset=source_preset, seed=seed)
    if not (experiment.runs / needed.name / WEIGHTS).exists():
        if console is not None:
            console.print(
                f"{method} on {data.name} starts from the weights of {needed.name}, which is "
                f"trained first (--init-from {NO_INIT} starts from scratch).",
                highlight=False,
                soft_wrap=True,
            )
        shared = {key: value for key, value in overrides.items() if key.startswith("net.")}
        train_run(
            source, data, experiment, fabric, console,
            preset=source_preset, seed=seed, overrides=shared, precision=precision,
        )  # fmt: skip
    return _start_from(needed.name, experiment)


def _start_from(name: str, experiment: Experiment) -> Start:
    """Weights of a run of this experiment by name, of any run by folder, or of a file."""
    candidates = [experiment.runs / name, Path(name)]
    for folder in candidates:
        if (folder / CARD).exists():
            if not (folder / WEIGHTS).exists():
                raise UserError(f"Run {name!r} is unfinished: train it to its end first.")
            path, run = folder / WEIGHTS, read_card(folder).name
            return Start(run, sha256(path), load_weights(path))
    path = Path(name)
    if path.suffix == ".safetensors" and path.exists():
        return Start(path.name, sha256(path), load_weights(path))
    runs = ", ".join(card.name for card in trained_runs(experiment)) or "none yet"
    raise UserError(
        f"--init-from {name!r} is no run of this experiment (it has: {runs}), no run's folder, "
        f"no .safetensors file and not {NO_INIT!r}.",
        code=2,
    )


def train_study(
    study: Study,
    experiment: Experiment,
    fabric: Fabric,
    console: Console | None,
    precision: str = DEFAULT_PRECISION,
) -> list[RunCard]:
    """Train every method and seed of a study that has something to train."""
    data = dataset(study.dataset)
    cards = []
    for seed in study.seeds:
        for method in study.methods:
            if method_class(method).trains:
                cards.append(
                    train_run(
                        method, data, experiment, fabric, console,
                        preset=preset_for(study, method), seed=seed, overrides=study.set,
                        precision=precision,
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
    study: Study,
    experiment: Experiment,
    *,
    weights: Path | None = None,
    download: bool = False,
) -> tuple[Sweep, list[str]]:
    """The sweep of a study, and a sentence for each of its runs that is left out."""
    data = dataset(study.dataset)
    found, missing = [], []
    for seed in study.seeds:
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
                folder = experiment.runs / card.name
                if not (folder / WEIGHTS).exists():
                    missing.append(f"{card.name}: {UNFINISHED}")
                    continue
                trained = read_card(folder)
                # What a run started from, and in which precision, a suite does not say.
                other = differences(trained, card, ("init_run", "init_checkpoint", "precision"))
                if other:
                    raise UserError(
                        f"Run {card.name!r} was not trained as the suite says ({other}): give the "
                        f"suite its own experiment, or remove {folder} and train again."
                    )
                card = trained
            elif seed != study.seeds[0]:
                continue  # without training there is nothing that a training seed could change
            ready = target(card, data, experiment)
            if ready is not None:
                found.append(ready)
    return _sweep(study, data, found, experiment, weights, download), missing


def plan_experiment(
    studies: Mapping[str, Study],
    experiment: Experiment,
    *,
    methods: Sequence[str] | None = None,
    weights: Path | None = None,
    download: bool = False,
) -> tuple[list[Sweep], list[str]]:
    """Sweeps of all runs of an experiment, a data set each, and a sentence a run left out.

    `studies` gives the settings by data set name; its keys limit the data sets. Methods without
    training join in where they have a preset.
    """
    cards = trained_runs(experiment)
    reasons = {card.name: unregistered(card) for card in cards}
    left_out = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    sweeps = []
    for name, study in studies.items():
        data = dataset(name)
        own = [c for c in cards if c.dataset == name and reasons[c.name] is None]
        for method in sorted(METHODS):
            cls = METHODS[method]
            if not cls.trains and name in cls.presets:
                own.append(make_card(method, data=data))
        found = []
        for card in own:
            if methods is not None and card.method not in methods:
                continue
            if card.data_hash != data.train.hash:
                raise UserError(
                    f"Run {card.name!r} was trained on other content of {name!r} than is here "
                    f"now; train it again under another --name, or restore the data."
                )
            ready = target(card, data, experiment)
            if ready is None:
                left_out.append(f"{card.name}: {UNFINISHED}")
            else:
                found.append(ready)
        if found:
            sweeps.append(_sweep(study, data, found, experiment, weights, download))
    return sweeps, left_out


def _sweep(
    study: Study,
    data: Dataset,
    found: Sequence[Target],
    experiment: Experiment,
    weights: Path | None,
    download: bool,
) -> Sweep:
    evaluation = prepare(
        data,
        experiment.cache,
        metrics=study.metrics,
        extractors=study.extractors,
        weights=weights,
        download=download,
    )
    samples = study.samples or data.default_samples
    targets = tuple(
        (t, tuple(expand(t, study.guidance, study.steps, study.sampling_seeds, samples)))
        for t in found
    )
    return Sweep(evaluation, targets, samples, study)


def resolve_device(name: str) -> torch.device:
    """'auto' is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"Device {name!r} cannot be used: {first}", code=2) from None
    return device
