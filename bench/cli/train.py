"""`bench train`, once its options are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench.cli.console import flags, refuse_beside_suite, suite_place
from bench.cli.data import prepare_if_missing
from bench.cli.describe import describe
from bench.data.find import find_dataset
from bench.experiment.place import (
    DEFAULT_DATASET,
    Experiment,
)
from bench.experiment.suite import Study
from bench.plugins.load import FILES
from bench.system.compiling import DEFAULT_BACKEND, compiler_problem
from bench.system.devices import make_fabric, resolve_device
from bench.system.errors import UserError, unknown
from bench.system.precision import PRECISIONS
from bench.system.progress import say
from bench.training.loop import Stopped
from bench.training.runs import method_class, parse_overrides
from bench.training.study import Trainer, preset_for, train_run, train_study
from bench.training.watch import parse_on_nan
from methods import METHODS


def train_all(
    console: Console,
    place: Experiment,
    *,
    methods: Sequence[str] | None,
    dataset_name: str | None,
    preset: str | None,
    seed: int,
    name: str | None,
    settings: Sequence[str],
    init_from: str | None,
    teacher: str | None,
    suite: str | None,
    device: str,
    precision: str,
    compiled: bool,
    dry_run: bool,
    data: Path | None = None,
    on_nan: str = "stop",
) -> None:
    """`bench train`; `data` is a source on disk that is prepared first where it is not."""
    policy = parse_on_nan(on_nan)
    if suite is not None:
        refuse_beside_suite(
            method=methods, preset=preset, name=name, set=settings, init_from=init_from,
            teacher=teacher, dataset=dataset_name, seed=seed, data=data,
        )  # fmt: skip
        studies, place = suite_place(suite, place)
    else:
        if not methods:
            raise UserError(
                f"Name a method: bench train --method igct. Available: "
                f"{', '.join(sorted(METHODS))}.",
                code=2,
            )
        if name and len(methods) > 1:
            raise UserError("--name is for one method at a time.", code=2)
        overrides = parse_overrides(settings)
        for method in methods:
            method_class(method)
        if data is not None:
            dataset_name = prepare_if_missing(console, data, dataset_name, dry_run=dry_run)
        studies = (
            Study(
                dataset=dataset_name or _dataset_of(preset, methods),
                methods=tuple(methods),
                preset=preset,
                seeds=(seed,),
                set=overrides,
            ),
        )
    for study in studies:
        for method in study.methods:
            method_class(method)
    if dry_run:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        for study in studies:
            for line in describe(study, resolve_device(device), precision):
                say(console, line)
        say(console, "Nothing was written.")
        return
    if suite is None and not any(method_class(m).trains for m in methods or ()):
        asked = "".join(f" --method {m}" for m in methods or ())
        say(console, f"{', '.join(methods or ())}: nothing to train.")
        say(console, f"Next: bench sweep{asked}{flags(place)}")
        return
    fabric = make_fabric(device, precision)
    own = console if fabric.is_global_zero else None
    compiler = _compiler(own, fabric.device) if compiled else None
    trainer = Trainer(place, fabric, own, precision, compiler, policy)
    try:
        for study in studies:
            if suite is not None:
                train_study(study, trainer)
                continue
            for method in study.methods:
                if method_class(method).trains:
                    train_run(
                        method, find_dataset(study.dataset), trainer,
                        preset=preset_for(study, method), seed=seed, name=name,
                        overrides=study.set, init_from=init_from, teacher=teacher,
                    )  # fmt: skip
    except Stopped as stopped:
        raise UserError(str(stopped), code=130) from None
    if own is not None:
        say(own, f"Trained runs are in {place.runs}.")
        plugins = "".join(f" --plugin {file}" for file in FILES)
        say(
            own,
            f"Next: bench sweep{flags(place, suite)}{plugins}"
            + ("" if suite else " --guidance 1..13"),
        )


def _compiler(console: Console | None, device: torch.device) -> str | None:
    """The compiler's backend if it works here; otherwise None, and a sentence why."""
    problem = compiler_problem(device)
    if problem is None:
        return DEFAULT_BACKEND
    if console is not None:
        say(console, f"No compiler works on {device} ({problem}): training goes on without.")
    return None


def _dataset_of(preset: str | None, methods: Sequence[str]) -> str:
    """The data set that a preset is made for, or the default one."""
    owners = [m for m in methods if m in METHODS and preset in METHODS[m].presets]
    return METHODS[owners[0]].presets[preset].dataset if preset and owners else DEFAULT_DATASET
