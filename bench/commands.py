"""What the commands do, once their options are parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.compiling import DEFAULT_BACKEND, compiler_problem
from bench.data import DATASETS
from bench.data.commands import prepare_if_missing, prepared_cards
from bench.describe import describe
from bench.errors import UserError, unknown
from bench.estimate import price_cells
from bench.experiment import (
    DEFAULT_DATASET,
    DEFAULT_EXPERIMENT,
    DEFAULT_GUIDANCE,
    DEFAULT_INVERSIONS,
    DEFAULT_SEEDS,
    Experiment,
    without_writing,
)
from bench.null_branch import find_null
from bench.orchestrate import (
    Equipment,
    Sweep,
    make_fabric,
    plan_experiment,
    plan_study,
    preset_for,
    resolve_device,
    train_run,
    train_study,
)
from bench.plugins import FILES, ORIGINS
from bench.precision import PRECISIONS
from bench.progress import duration
from bench.ranges import parse_ints, parse_range
from bench.runs import (
    dataset,
    has_dataset,
    method_class,
    parse_overrides,
    trained_runs,
)
from bench.saving import Saver, make_saver
from bench.store import read_rows
from bench.suite import Study, builtin_suites, read_suite
from bench.sweep import floor_row, sweep
from bench.train import Stopped
from methods import METHODS
from metrics import EXTRACTORS, METRICS


def say(console: Console, text: str) -> None:
    """One line, unwrapped, as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def suite_place(suite: str, place: Experiment) -> tuple[tuple[Study, ...], Experiment]:
    """The studies of a suite and the experiment to put them in.

    The suite names its experiment; --experiment, where given, goes first.
    """
    found = read_suite(suite)
    if place.name == DEFAULT_EXPERIMENT:
        place = replace(place, name=found.experiment)
    return found.study, place


def flags(place: Experiment, suite: str | None = None) -> str:
    """The options that the next command needs in order to find the same experiment."""
    parts = []
    if suite is not None:
        parts.append(f" --suite {suite}")
    elif place.name != DEFAULT_EXPERIMENT:
        parts.append(f" --experiment {place.name}")
    if place.results != Path("results"):
        parts.append(f" --results {place.results}")
    return "".join(parts)


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
) -> None:
    """`bench train`; `data` is a source on disk that is prepared first where it is not."""
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
    try:
        for study in studies:
            if suite is not None:
                train_study(study, place, fabric, own, precision, compiler)
                continue
            for method in study.methods:
                if method_class(method).trains:
                    train_run(
                        method, dataset(study.dataset), place, fabric, own,
                        preset=preset_for(study, method), seed=seed, name=name,
                        overrides=study.set, precision=precision, init_from=init_from,
                        teacher=teacher, compiler=compiler,
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


def sweep_all(
    console: Console,
    place: Experiment,
    *,
    guidance: str,
    steps: str | None,
    samples: int | None,
    seeds: str,
    methods: Sequence[str] | None,
    datasets: Sequence[str] | None,
    metrics: Sequence[str] | None,
    extractors: Sequence[str] | None,
    weights: Path | None,
    download: bool,
    batch: int,
    suite: str | None,
    device: str,
    dry_run: bool,
    null_checkpoint: str | None = None,
    save_samples: str | None = None,
    inversion: bool = False,
    inversion_samples: int = DEFAULT_INVERSIONS,
    inversion_guidance: str | None = None,
) -> None:
    """`bench sweep`."""
    where = resolve_device(device)
    if save_samples is not None:
        make_saver(place, save_samples)

    def equip(place: Experiment) -> Equipment:
        null = find_null(null_checkpoint, place) if null_checkpoint else None
        return Equipment(weights, download, where, partial(say, console), null)

    if suite is not None:
        refuse_beside_suite(
            guidance=guidance != DEFAULT_GUIDANCE, steps=steps, samples=samples,
            seeds=seeds != DEFAULT_SEEDS, method=methods, dataset=datasets, metric=metrics,
            extractor=extractors, inversion=inversion, inversion_guidance=inversion_guidance,
            inversion_samples=inversion_samples != DEFAULT_INVERSIONS,
        )  # fmt: skip
    if not inversion and (inversion_guidance or inversion_samples != DEFAULT_INVERSIONS):
        raise UserError("--inversion-samples and --inversion-guidance need --inversion.", code=2)
    base = Study(
        dataset="",
        methods=(),
        guidance=parse_range(guidance, "--guidance"),
        steps=None if steps is None else parse_ints(steps, "--steps", least=1),
        samples=samples,
        sampling_seeds=parse_ints(seeds, "--seeds"),
        metrics=None if metrics is None else tuple(metrics),
        extractors=None if extractors is None else tuple(extractors),
        inversion=inversion,
        inversion_samples=inversion_samples,
        inversion_guidance=(
            parse_range(inversion_guidance, "--inversion-guidance") if inversion_guidance else None
        ),
    )
    with without_writing(place) if dry_run else nullcontext(place) as place:
        if suite is not None:
            studies, place = suite_place(suite, place)
            plans = [plan_study(s, place, equip(place)) for s in studies]
            sweeps = [planned for planned, _ in plans]
            left_out = [line for _, lines in plans for line in lines]
        else:
            for method in methods or ():
                method_class(method)
            names = datasets or _swept_datasets(place, methods)
            table = {name: base.model_copy(update={"dataset": name}) for name in names}
            sweeps, left_out = plan_experiment(table, place, equip(place), methods=methods)
        for line in left_out:
            say(console, f"Left out {line}.")
        if not any(s.targets for s in sweeps):
            asked = methods[0] if methods else "igct"
            raise UserError(
                f"There is no trained run in {place.runs}"
                + (f" of {', '.join(methods)}" if methods else "")
                + f": bench train{'' if suite else f' --method {asked}'}{flags(place, suite)}."
            )
        if null_checkpoint and not any(t.null_checkpoint for s in sweeps for t, _ in s.targets):
            raise UserError("--null-checkpoint is for runs of edm, and none is swept.", code=2)
        if dry_run:
            for planned in sweeps:
                _price(console, planned, place, where, batch)
            say(console, "Nothing was computed.")
            return
        saver = None if save_samples is None else make_saver(place, save_samples)
        if saver is not None:
            for planned in sweeps:
                saver.check([c for c in planned.cells if not c.skip], planned.evaluation.data)
        failed = [line for s in sweeps for line in _execute(console, s, place, where, batch, saver)]
    for line in failed:
        say(console, f"Failed: {line}")
    if failed:
        raise UserError(
            f"{len(failed)} cells failed; the same command tries them again and keeps the others."
        )
    say(console, f"Rows are in {place.cells}.")
    if saver is not None:
        say(console, f"Samples are in {place.samples}.")
    say(console, f"Next: bench report{flags(place, suite)}")


def _execute(
    console: Console,
    planned: Sweep,
    place: Experiment,
    device: torch.device,
    batch: int,
    saver: Saver | None,
) -> list[str]:
    """Floor and cells of one data set; returns one sentence a failed cell."""
    evaluation = planned.evaluation
    data = evaluation.data
    if floor_row(data, evaluation, place, planned.samples, partial(say, console)) is None:
        say(
            console,
            f"{data.name}: no real-versus-real floor, which needs {planned.samples} training "
            f"samples; there are {len(data.train)}.",
        )
    outcome = sweep(
        planned.targets, evaluation, place,
        batch=batch, device=device, console=console, saver=saver,
    )  # fmt: skip
    say(
        console,
        f"{data.name}: {outcome.computed} cells computed"
        + (f" ({outcome.diverged} diverged)" if outcome.diverged else "")
        + f", {outcome.kept} kept, {outcome.skipped} skipped with a reason, "
        f"{len(outcome.failed)} failed.",
    )
    if not planned.study.inversion:
        return outcome.failed
    from bench.inversion.study import invert_runs

    return outcome.failed + invert_runs(
        planned, planned.study, place, batch=batch, device=device, console=console,
        say=partial(say, console),
    )  # fmt: skip


def refuse_beside_suite(**options: object) -> None:
    """UserError for options that were given although a suite decides what they say."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UserError(
            f"--suite decides this itself: leave {', '.join(given)} away, or write a suite file "
            "of your own.",
            code=2,
        )


def _swept_datasets(place: Experiment, methods: Sequence[str] | None) -> list[str]:
    """The data sets of all trained runs, and of the presets of methods that need no training."""
    names = [card.dataset for card in trained_runs(place) if has_dataset(card.dataset)]
    for method in methods or ():
        cls = method_class(method)
        if not cls.trains:
            names += [preset.dataset for preset in cls.presets.values()]
    return list(dict.fromkeys(names))


def _price(
    console: Console, planned: Sweep, place: Experiment, device: torch.device, batch: int
) -> None:
    table = Table("run", "steps", "cells", "skipped", "done", "NFE", "images", "about")
    total = 0.0
    for line in price_cells(planned, place, device, batch):
        total += line.seconds
        table.add_row(
            line.run, str(line.steps), str(line.cells), str(line.skipped), str(line.done),
            f"{line.nfe:,}", f"{line.images:,}", duration(line.seconds),
        )  # fmt: skip
    say(console, f"{planned.evaluation.data.name}, {planned.samples} samples a cell:")
    console.print(table)
    say(console, f"Still to do: about {duration(total)} on {device}.")
    if planned.study.inversion:
        from bench.inversion.study import price_inversions

        price_inversions(planned, planned.study, place, device, partial(say, console))


def report_all(console: Console, place: Experiment, *, suite: str | None) -> None:
    """`bench report`."""
    from bench.inversion.store import read_inversions
    from bench.report import write_report

    if suite is not None:
        _, place = suite_place(suite, place)
    rows = read_rows(place.cells)
    if not rows:
        raise UserError(f"There are no rows in {place.cells}: bench sweep{flags(place, suite)}.")
    inversions = read_inversions(place.inversions)
    paths = write_report(rows, place.report, published=published_file(), inversions=inversions)
    for problem in paths.problems:
        say(console, f"Warning: {problem}")
    more = f" and {len(inversions)} of inversions" if inversions else ""
    say(console, f"{len(rows)} rows{more} reported.")
    say(console, f"Look at {paths.page} (tables also in {paths.markdown}).")
    if paths.problems:
        sys.exit(1)


def published_file() -> Path | None:
    """results/published.csv of the checkout, or its copy in the installed package."""
    package = Path(__file__).resolve().parent
    for path in (package / "published.csv", package.parent / "results" / "published.csv"):
        if path.exists():
            return path
    return None


def list_all(console: Console, what: str) -> None:
    """`bench list`."""
    lines: dict[str, list[tuple[str, str, str]]] = {
        "methods": [(n, c.summary, ORIGINS["methods", n]) for n, c in METHODS.items()],
        "metrics": [(n, c.summary, ORIGINS["metrics", n]) for n, c in METRICS.items()],
        "datasets": [(n, c.summary, ORIGINS["datasets", n]) for n, c in DATASETS.items()]
        + [
            (c.name, c.summary, "prepared")
            for c in (prepared_cards() if what == "datasets" else ())
        ],
        "extractors": [(n, "", "") for n in EXTRACTORS],
        "suites": [(n, str(p), "") for n, p in builtin_suites().items()],
    }
    if what not in lines:
        raise unknown("list", what, lines)
    table = Table.grid(padding=(0, 2))
    for name, summary, origin in sorted(lines[what]):
        table.add_row(name, summary, f"({origin})" if origin else "")
    console.print(table)
