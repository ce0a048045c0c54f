"""`bench sweep`, once its options are parsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.cli.console import flags, refuse_beside_suite, suite_place
from bench.cli.rule_use import unused_rules
from bench.data.find import has_dataset
from bench.experiment.place import (
    DEFAULT_GUIDANCE,
    DEFAULT_INVERSIONS,
    DEFAULT_SEEDS,
    Experiment,
    without_writing,
)
from bench.experiment.protocols import find_protocol
from bench.experiment.ranges import parse_ints, parse_range
from bench.experiment.rules import parse_knobs, parse_rules, study_rules
from bench.experiment.seeds import check_seeds
from bench.experiment.suite import Study
from bench.sweep.execute import sweep
from bench.sweep.plan import Equipment, Sweep, plan_experiment, plan_study
from bench.sweep.price import price_cells
from bench.sweep.run import floor_row
from bench.sweep.saving import Saver, make_saver
from bench.system.devices import resolve_device
from bench.system.errors import UserError, unknown
from bench.system.progress import duration, say
from bench.training.extra_network import find_extra_networks
from bench.training.run import refuse_unused
from bench.training.runs import method_class, trained_runs
from bench.tuning.subject import rules_for


def sweep_all(
    console: Console,
    place: Experiment,
    *,
    guidance: str,
    steps: str | None,
    samples: int | None,
    seeds: str,
    methods: Sequence[str] | None,
    runs: Sequence[str] | None,
    datasets: Sequence[str] | None,
    metrics: Sequence[str] | None,
    extractors: Sequence[str] | None,
    weights: Path | None,
    download: bool,
    batch: int,
    suite: str | None,
    device: str,
    dry_run: bool,
    protocol: str | None = None,
    rules: Sequence[str] | None = None,
    knobs: Sequence[str] | None = None,
    tuned: bool = False,
    null_checkpoint: str | None = None,
    weak_checkpoint: str | None = None,
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
        seconds = find_extra_networks(place, null=null_checkpoint, weak=weak_checkpoint)
        tell = partial(say, console)
        return Equipment(weights, download, where, tell, seconds, not dry_run, rules=rules_for)

    if suite is not None:
        refuse_beside_suite(
            guidance=guidance != DEFAULT_GUIDANCE, steps=steps, samples=samples,
            seeds=seeds != DEFAULT_SEEDS, method=methods, run=runs, dataset=datasets,
            metric=metrics,
            extractor=extractors, protocol=protocol, rule=rules, knob=knobs, tuned=tuned,
            inversion=inversion,
            inversion_guidance=inversion_guidance,
            inversion_samples=inversion_samples != DEFAULT_INVERSIONS,
        )  # fmt: skip
    if not inversion and (inversion_guidance or inversion_samples != DEFAULT_INVERSIONS):
        raise UserError("--inversion-samples and --inversion-guidance need --inversion.", code=2)
    if protocol is not None:
        find_protocol(protocol)
        if metrics or extractors:
            raise UserError(
                "--protocol says which extractors and metrics: leave --extractor and --metric "
                "away, or --protocol.",
                code=2,
            )
    base = Study(
        dataset="",
        methods=(),
        guidance=parse_range(guidance, "--guidance"),
        rules=parse_rules(rules),
        knobs=parse_knobs(knobs or ()),
        tuned=tuned,
        steps=None if steps is None else parse_ints(steps, "--steps", least=1),
        samples=samples,
        sampling_seeds=parse_ints(seeds, "--seeds"),
        metrics=None if metrics is None else tuple(metrics),
        extractors=None if extractors is None else tuple(extractors),
        protocol=protocol,
        inversion=inversion,
        inversion_samples=inversion_samples,
        inversion_guidance=(
            parse_range(inversion_guidance, "--inversion-guidance") if inversion_guidance else None
        ),
    )
    studies: Sequence[Study] = (base,)
    if suite is not None:
        studies, place = suite_place(suite, place)
    for study in studies:  # before anything is prepared for the first of them
        study_rules(study)
        check_seeds(study.sampling_seeds)
    with without_writing(place) if dry_run else nullcontext(place) as place:
        if suite is not None:
            plans = [plan_study(s, place, equip(place)) for s in studies]
            sweeps = [planned for planned, _ in plans]
            left_out = [line for _, lines in plans for line in lines]
        else:
            for method in methods or ():
                method_class(method)
            chosen = chosen_runs(place, runs)
            names = datasets or swept_datasets(place, methods, chosen)
            table = {name: base.model_copy(update={"dataset": name}) for name in names}
            sweeps, left_out = plan_experiment(
                table, place, equip(place), methods=methods, runs=chosen
            )
        for line in left_out:
            say(console, f"Left out {line}.")
        for line in unused_rules(sweeps):
            say(console, line)
        if not any(s.targets for s in sweeps):
            asked = methods[0] if methods else "igct"
            raise UserError(
                f"There is no trained run in {place.runs}"
                + (f" of {', '.join(methods)}" if methods else "")
                + f": bench train{'' if suite else f' --method {asked}'}{flags(place, suite)}."
            )
        seconds = find_extra_networks(place, null=null_checkpoint, weak=weak_checkpoint)
        refuse_unused(seconds, [found for s in sweeps for found, _ in s.targets])
        if weak_checkpoint and not any(c.weak_checkpoint for s in sweeps for c in s.cells):
            say(console, "No rule here leads away from a weaker network, as autoguidance does.")
        if dry_run:
            for planned in sweeps:
                _price(console, planned, place, where, batch)
            if left_out:
                say(console, "What was left out above is not in these times.")
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
        planned.cells, evaluation, place,
        batch=batch, device=device, console=console, saver=saver, tell=partial(say, console),
    )  # fmt: skip
    say(
        console,
        f"{data.name}: {outcome.computed} cells computed"
        + (f" ({outcome.diverged} diverged)" if outcome.diverged else "")
        + f", {outcome.kept} kept, {outcome.skipped} skipped with a reason, "
        f"{len(outcome.failed)} failed.",
    )
    for reason, count in Counter(c.skip for c in planned.cells if c.skip).items():
        say(console, f"{data.name}: {count} skipped: {reason}.")
    if not planned.study.inversion:
        return outcome.failed
    from bench.inversion.study import invert_runs

    return outcome.failed + invert_runs(
        planned, planned.study, place, batch=batch, device=device, console=console,
        say=partial(say, console),
    )  # fmt: skip


def chosen_runs(place: Experiment, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of runs that were asked for, None for all; UserError for one that is not there."""
    if not names:
        return None
    here = [card.name for card in trained_runs(place)]
    if not here:
        raise UserError(f"There is no trained run in {place.runs}: bench train --method igct.")
    for name in names:
        if name not in here:
            raise unknown("run", name, here)
    return tuple(names)


def swept_datasets(
    place: Experiment, methods: Sequence[str] | None, runs: Sequence[str] | None = None
) -> list[str]:
    """The data sets of all trained runs, and of the presets of methods that need no training.

    With `runs`, of these alone.
    """
    cards = [card for card in trained_runs(place) if runs is None or card.name in runs]
    names = [card.dataset for card in cards if has_dataset(card.dataset)]
    for method in () if runs is not None else methods or ():
        cls = method_class(method)
        if not cls.trains:
            names += [preset.dataset for preset in cls.presets.values()]
    return list(dict.fromkeys(names))


def _price(
    console: Console, planned: Sweep, place: Experiment, device: torch.device, batch: int
) -> None:
    several = len(planned.study.rules) > 1
    of_rule = ("rule",) if several else ()
    table = Table("run", *of_rule, "steps", "cells", "skipped", "done", "NFE", "images", "about")
    total = 0.0
    for line in price_cells(planned, place, device, batch):
        total += line.seconds
        table.add_row(
            line.run, *((line.rule,) if several else ()), str(line.steps), str(line.cells),
            str(line.skipped), str(line.done), f"{line.nfe:,}", f"{line.images:,}",
            duration(line.seconds),
        )  # fmt: skip
    say(console, f"{planned.evaluation.data.name}, {planned.samples} samples a cell:")
    console.print(table)
    say(console, f"Still to do: about {duration(total)} on {device}.")
    if planned.study.inversion:
        from bench.inversion.study import price_inversions

        price_inversions(planned, planned.study, place, device, partial(say, console))
