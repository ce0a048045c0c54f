"""`bench train`: training runs of methods, or all those of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.sharing import choose_sharing
from bench.experiment import place
from bench.experiment.ranges import parse_ints
from bench.system.errors import UserError

if TYPE_CHECKING:
    import torch

    from bench.experiment.suite import Study
    from bench.system.progress import Reporter


def train_command(
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Method; repeat for several.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", "-d", help=f"Data set; default: the preset's or {place.DEFAULT_DATASET}."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Archive or folder of images to train on; prepared first if needed."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings by name, or auto; by default those that fit.")
    ] = None,
    seed: Annotated[
        str,
        typer.Option(
            "--seeds", "--seed", help="Seeds of initial weights and all draws, one run each: 0..2."
        ),
    ] = "0",
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the preset; repeatable.")
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Run, folder or .safetensors to start from, or 'none'.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Run, folder or .safetensors to distil; by default the edm run."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Continue this run, with the settings that it has.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="With --run: its iterations at the end, all together.")
    ] = None,
    suite: options.Suite = None,
    experiment: options.ExperimentName = place.DEFAULT_EXPERIMENT,
    results: options.Results = place.DEFAULT_RESULTS,
    device: options.Device = "auto",
    precision: Annotated[
        str, typer.Option(help="32-true, tf32 or bf16-mixed.")
    ] = place.DEFAULT_PRECISION,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks with torch.compile.")
    ] = False,
    on_nan: Annotated[
        str,
        typer.Option(help="If losses or weights are unusable: stop or rollback."),
    ] = "stop",
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log also to tensorboard or wandb, with samples at checkpoints; repeatable."
        ),
    ] = None,
    workers: options.Workers = None,
    launcher: options.LauncherName = None,
    slurm: options.Slurm = None,
    ray: options.Ray = None,
    detach: options.Detach = False,
    nodes: Annotated[
        int, typer.Option(min=1, help="Nodes of a cluster that train each run together.")
    ] = 1,
    gpus: Annotated[
        int, typer.Option(min=1, help="GPUs, and processes, on each of these nodes.")
    ] = 1,
    plugin: options.Plugins = None,
    dry_run: options.DryRun = False,
) -> place.Experiment:
    """Train methods; run the same command again to continue after a stop."""
    from bench.data.ensure import prepare_if_missing
    from bench.data.find import find_dataset
    from bench.experiment.suite import flags, suite_studies
    from bench.plugins.load import plugin_options
    from bench.sweep.trainings import price_all, train_all
    from bench.system.devices import make_fabric
    from bench.system.progress import SILENT
    from bench.training.card import method_class
    from bench.training.further import card_to_continue, train_further
    from bench.training.loggers import check_loggers
    from bench.training.price import data_or_stand_in
    from bench.training.study import Trainer, study_cards, study_requests
    from bench.training.watch import parse_on_nan

    reporter, found = options.begin(plugin, results, experiment)
    sharing = choose_sharing(workers, launcher, slurm, ray, suite, detach=detach)
    sharing = sharing.on_nodes(nodes, gpus)
    policy, loggers = parse_on_nan(on_nan), check_loggers(log or ())
    if iterations is not None and run is None:
        raise UserError(
            "--iterations goes with --run; for a new run type --set "
            f"train.iterations={iterations}.",
            code=2,
        )
    if run is not None:
        _refuse_beside_run(
            method=method, preset=preset, name=name, set=setting, init_from=init_from,
            teacher=teacher, dataset=dataset, seeds=seed != "0", data=data, suite=suite,
            precision=precision != place.DEFAULT_PRECISION,
        )  # fmt: skip
        card = card_to_continue(found, run, iterations)
        fabric = make_fabric(sharing.device(device), card.precision)
        own = reporter if fabric.is_global_zero else SILENT
        assert card.train is not None
        own.say(f"{run}: to {card.train.iterations} iterations of {card.method} on {card.dataset}.")
        if dry_run:
            own.say("Nothing was written.")
            return found
        compiler = _compiler(own, fabric.device) if compiled else None
        train_further(card, Trainer(found, fabric, own, card.precision, compiler, policy, loggers))
        own.say(f"Next: bench sweep{flags(found)}{plugin_options()} --run {run}")
        return found
    if suite is not None:
        options.refuse_beside_suite(
            method=method, preset=preset, name=name, set=setting, init_from=init_from,
            teacher=teacher, dataset=dataset, seeds=seed != "0", data=data,
        )  # fmt: skip
        studies, found = suite_studies(suite, found)
    else:
        seeds = _seeds(seed)
        if name and len(method or ()) * len(seeds) > 1:
            raise UserError("--name is for one method and one seed at a time.", code=2)
        base = _study(method or (), dataset, preset, seeds, setting or ())
        if data is not None:
            named = prepare_if_missing(reporter, data, dataset, dry_run=dry_run)
            base = base.model_copy(update={"dataset": named})
        studies = (base,)
    for study in studies:
        for wanted in study.methods:
            method_class(wanted)
    trained = [m for study in studies for m in study.methods if method_class(m).trains]
    if suite is None and not trained and not dry_run:
        asked = "".join(f" --method {m}" for m in studies[0].methods)
        asked += f" --dataset {dataset}" if dataset else ""
        reporter.say(f"{', '.join(studies[0].methods)}: nothing to train.")
        reporter.say(f"Next: bench sweep{asked}{flags(found)}{plugin_options()}")
        return found
    fabric = make_fabric(sharing.device(device), precision)
    own = reporter if fabric.is_global_zero else SILENT
    compiler = _compiler(own, fabric.device) if compiled and not dry_run else None
    trainer = Trainer(found, fabric, own, precision, compiler, policy, loggers)
    requests = []
    for study in studies:
        images = data_or_stand_in(study) if dry_run else find_dataset(study.dataset)
        requests += study_requests(study, images)
        for card in study_cards(study, images, study.seeds[0]) if dry_run else ():
            if card.train is None:
                own.say(f"{card.name}: nothing to train.")
    if suite is None:
        requests = [
            replace(request, name=name, init_from=init_from, teacher=teacher)
            for request in requests
        ]
    if dry_run:
        price_all(requests, trainer, sharing.count(fabric.device))
        own.say("Nothing was written.")
        return found
    sharing.begin(fabric.device, found, own, [study.dataset for study in studies])
    train_all(requests, trainer)
    own.say(f"Trained runs are in {found.runs}.")
    if "tensorboard" in loggers:
        own.say(f"Curves and samples: tensorboard --logdir {found.runs}")
    chosen = f" --dataset {studies[0].dataset}" if dataset or data else ""
    scales = "" if suite else f" --guidance {place.DEFAULT_GUIDANCE}"
    own.say(f"Next: bench sweep{flags(found, suite)}{plugin_options()}{chosen}{scales}")
    return found


def _refuse_beside_run(**given: object) -> None:
    """UserError for options that a run has already."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise UserError(f"--run has its settings: drop {', '.join(names)}.", code=2)


def _seeds(text: str) -> tuple[int, ...]:
    """The seeds of a range; a single one may be too large for a float."""
    if not text.isdigit():
        return parse_ints(text, "--seeds")
    if len(text) > 19 or int(text) > place.SEED_MOST:
        raise UserError(f"--seeds {text!r} is above {place.SEED_MOST}.", code=2)
    return (int(text),)


def _study(
    methods: Sequence[str], dataset: str | None, preset: str | None, seeds: tuple[int, ...],
    settings: Sequence[str],
) -> Study:  # fmt: skip
    """The study of the options; the data set is by default that of the preset, or digits."""
    from bench.experiment.suite import Study
    from bench.training.card import method_class, parse_overrides
    from methods import METHODS

    if not methods:
        raise UserError(
            f"Name a method: bench train --method igct. Available: {', '.join(sorted(METHODS))}.",
            code=2,
        )
    overrides = parse_overrides(settings)
    presets = [method_class(method).presets for method in methods]
    made_for = [own[preset].dataset for own in presets if preset and preset in own]
    return Study(
        dataset=dataset or next(iter(made_for), place.DEFAULT_DATASET),
        methods=tuple(methods),
        preset=preset,
        seeds=seeds,
        set=overrides,
    )


def _compiler(reporter: Reporter, device: torch.device) -> str | None:
    """The compiler's backend if it works here; otherwise None, after printing the reason."""
    from bench.system import devices

    problem = devices.compiler_problem(device)
    if problem is None:
        return devices.DEFAULT_BACKEND
    reporter.say(f"No compiler works on {device} ({problem}): training continues without it.")
    return None
