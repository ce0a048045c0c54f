"""`bench sweep`: samples all runs over guidance scales and measures them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.sharing import choose_sharing, join_ranks
from bench.experiment import place
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from bench.experiment.suite import Study
    from bench.sweep.cells import Cell
    from bench.sweep.execute import Outcome
    from bench.sweep.plan import Sweep
    from bench.sweep.request import SweepRequest
    from bench.sweep.saving import SampleFiles
    from bench.system.progress import Reporter


def sweep_command(
    model: options.Models = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales: 1..13, 1..13:2 or 1,1.5,2; 1 is off.")
    ] = place.DEFAULT_GUIDANCE,
    steps: Annotated[
        str | None, typer.Option(help="Sampling steps, a range; by default the preset's.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", min=2, max=place.SAMPLES_MOST, help="Samples per cell."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Sampling seeds, a range.")] = place.DEFAULT_SEEDS,
    method: options.Methods = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only these runs, by name; repeatable.")
    ] = None,
    dataset: options.Datasets = None,
    metric: options.Metrics = None,
    extractor: Annotated[list[str] | None, typer.Option(help="Features; repeatable.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Metrics and features of a published protocol: see bench list protocols."
        ),
    ] = None,
    weights: options.Weights = None,
    download: options.Download = False,
    offline: options.Offline = False,
    batch: options.Batch = 256,
    rule: options.Rules = None,
    knob: options.Knobs = None,
    tuned: options.Tuned = False,
    null_checkpoint: options.NullCheckpoint = None,
    weak_checkpoint: options.WeakCheckpoint = None,
    suite: options.Suite = None,
    experiment: options.ExperimentName = place.DEFAULT_EXPERIMENT,
    results: options.Results = place.DEFAULT_RESULTS,
    device: options.Device = "auto",
    workers: options.Workers = None,
    launcher: options.LauncherName = None,
    slurm: options.Slurm = None,
    ray: options.Ray = None,
    detach: options.Detach = False,
    plugin: options.Plugins = None,
    dry_run: options.DryRun = False,
    save_samples: Annotated[
        str | None,
        typer.Option(help="Also keep each cell's samples: png (folders), zip or npz."),
    ] = None,
    labels: options.SampleLabels = None,
    sampler: options.SamplerName = "heun",
    grid: options.GridName = "edm",
    matched: Annotated[
        bool,
        typer.Option("--matched", help="Also CFG at the scales of equal outcome with other lines."),
    ] = False,
    match_nfe: Annotated[
        bool, typer.Option("--match-nfe", help="Also CFG at the step counts that cost the same.")
    ] = False,
    inversion: Annotated[
        bool, typer.Option("--inversion", help="Also invert, reconstruct and edit real images.")
    ] = False,
    inversion_samples: Annotated[
        int,
        typer.Option(
            min=2, max=place.SAMPLES_MOST, help="Images to invert, balanced over the classes."
        ),
    ] = place.DEFAULT_INVERSIONS,
    inversion_guidance: Annotated[
        str | None, typer.Option(help="Scales of edits, a range; by default those of --guidance.")
    ] = None,
) -> place.Experiment:
    """Sample all trained runs over guidance scales and measure; computes only what is missing."""
    from bench.experiment.ranges import parse_ints, parse_range
    from bench.experiment.rules import parse_knobs, parse_rules, study_rules
    from bench.experiment.suite import Study, check_seeds, suite_studies
    from bench.plugins.load import model_method
    from bench.sweep.plan import swept_datasets
    from bench.sweep.request import SweepRequest
    from bench.sweep.saving import SampleFiles
    from bench.system.devices import resolve_device
    from bench.tuning.subject import rules_for

    if model and run:
        raise UserError("--model names no trained run: drop it or --run.", code=2)
    plugin = [*(plugin or ()), *options.model_files(model or (), dataset or ())]
    reporter, found = options.begin(
        plugin, results, experiment, offline=offline, download=download, silent=join_ranks()
    )
    if model:
        method = [*map(model_method, model), *(method or ())]
    sharing = choose_sharing(workers, launcher, slurm, ray, suite, detach=detach)
    if model and not sharing.launcher.shares_folders:
        raise UserError(
            "--model reads files that workers must share: use --launcher local or slurm.", code=2
        )
    if save_samples is not None:
        SampleFiles(found, save_samples)
    if suite is not None:
        options.refuse_beside_suite(
            guidance=guidance != place.DEFAULT_GUIDANCE, steps=steps, samples=samples,
            seeds=seeds != place.DEFAULT_SEEDS, method=method, run=run, dataset=dataset,
            metric=metric, extractor=extractor, protocol=protocol, rule=rule, knob=knob,
            tuned=tuned, matched=matched, match_nfe=match_nfe, inversion=inversion,
            inversion_guidance=inversion_guidance, labels=labels,
            sampler=sampler != "heun", grid=grid != "edm",
            inversion_samples=inversion_samples != place.DEFAULT_INVERSIONS,
        )  # fmt: skip
    if not inversion and (inversion_guidance or inversion_samples != place.DEFAULT_INVERSIONS):
        raise UserError("--inversion-samples and --inversion-guidance need --inversion.", code=2)
    options.chosen_protocol(protocol, metric, extractor)
    edits = parse_range(inversion_guidance, "--inversion-guidance") if inversion_guidance else None
    options.check_sampling(labels, sampler, grid)
    base = Study(
        dataset="", methods=(), guidance=parse_range(guidance, "--guidance"),
        rules=parse_rules(rule), knobs=parse_knobs(knob or ()), tuned=tuned,
        steps=None if steps is None else parse_ints(steps, "--steps", 1, place.STEPS_MOST),
        samples=samples, sampling_seeds=parse_ints(seeds, "--seeds"),
        metrics=None if metric is None else tuple(metric),
        extractors=None if extractor is None else tuple(extractor), protocol=protocol,
        labels=labels, sampler=sampler, grid=grid,
        matched=matched, match_nfe=match_nfe, inversion=inversion,
        inversion_samples=inversion_samples, inversion_guidance=edits,
    )  # fmt: skip
    studies: Sequence[Study] = (base,)
    if suite is not None:
        studies, found = suite_studies(suite, found)
    for study in studies:
        study_rules(study)
        check_seeds(study.sampling_seeds)
    options.note_scales([g for study in studies for g in study.guidance], reporter)
    if suite is None:
        here = swept_datasets(found, method or (), run or ())
        studies = tuple(base.model_copy(update={"dataset": name}) for name in dataset or here)
    request = SweepRequest(
        studies=tuple(studies), suite=suite, methods=tuple(method or ()), runs=tuple(run or ()),
        weights=weights, download=download, null_checkpoint=null_checkpoint,
        weak_checkpoint=weak_checkpoint, batch=batch,
        device=resolve_device(sharing.device(device)),
        save_samples=save_samples, dry_run=dry_run, rules=rules_for,
    )  # fmt: skip
    if not dry_run:
        sharing.begin(request.device, found, reporter, [study.dataset for study in studies])
    _sweep(request, found, sharing.count(request.device), reporter)
    return found


def _sweep(
    request: SweepRequest, asked: place.Experiment, workers: int, reporter: Reporter
) -> None:
    """Plan, then print the cost or execute."""
    from bench.experiment.suite import flags
    from bench.sweep.matched import with_equal_cost
    from bench.sweep.plan import plan_sweeps
    from bench.sweep.ranks import current_ranks
    from bench.sweep.run import record_cells
    from bench.sweep.saving import SampleFiles
    from bench.system.progress import duration
    from bench.system.workers import is_worker
    from bench.training.extra_network import find_extra_networks
    from bench.training.run import no_run, refuse_unused

    with place.without_writing(asked) if request.dry_run else nullcontext(asked) as experiment:
        sweeps, left_out = plan_sweeps(request, experiment, reporter.say)
        sweeps = [with_equal_cost(each) if each.study.match_nfe else each for each in sweeps]
        ranks = current_ranks()
        if ranks is not None:
            ranks.agree(sweeps)
            if not ranks.leads:
                ranks.serve(sweeps, experiment, request.device)
                return
        _warn_of_unused_rules(sweeps, reporter)
        if not any(planned.cells for planned in sweeps):
            method = request.methods[0] if request.methods else None
            names = [study.dataset for study in request.studies]
            only = names[0] if len(names) == 1 and request.suite is None else None
            raise no_run(experiment, method, only, request.suite)
        null, weak = request.null_checkpoint, request.weak_checkpoint
        networks = find_extra_networks(experiment, null=null, weak=weak)
        refuse_unused(networks, [run for s in sweeps for run in s.runs])
        if weak and not any(c.weak_checkpoint for s in sweeps for c in s.cells):
            reporter.say("No rule here uses a weaker network, as autoguidance does.")
        if request.dry_run:
            prices = [_price(each, request, experiment, reporter) for each in sweeps]
            total, longest = sum(p[0] for p in prices), max(p[1] for p in prices)
            cells = sum(not cell.skip for each in sweeps for cell in each.cells)
            workers = max(1, min(workers, cells)) if ranks is None else ranks.size
            about = duration(max(total / workers, longest))
            one = f", of which the longest cell takes {duration(longest)}" if workers > 1 else ""
            reporter.say(f"All cells: about {about} with {counted(workers, 'worker')}{one}.")
            if left_out:
                reporter.say("These times do not include the runs left out above.")
            if any(each.study.matched for each in sweeps):
                reporter.say(
                    "Nor do they include the cells of --matched, which depend on the rows."
                )
            reporter.say("Nothing was computed.")
            return
        saver = None
        if request.save_samples is not None:
            saver = SampleFiles(experiment, request.save_samples)
            for planned in sweeps:
                saver.check([c for c in planned.cells if not c.skip], planned.evaluation.data)
        for planned in sweeps:
            record_cells(planned.cells, planned.evaluation.data.name, experiment)
        failed = [
            line for s in sweeps for line in _execute(s, request, experiment, saver, reporter)
        ]
    for line in failed:
        reporter.say(f"Failed: {line}")
    if failed and not is_worker():  # whose command reports it
        raise UserError(
            f"{counted(len(failed), 'cell')} failed. Run the same command to try again; the others "
            "are kept."
        )
    reporter.say(f"Rows are in {experiment.cells}.")
    if saver is not None:
        reporter.say(f"Samples are in {experiment.samples}.")
    reporter.say(f"Next: bench report{flags(experiment, request.suite)}")


def _execute(
    planned: Sweep, request: SweepRequest, experiment: place.Experiment,
    saver: SampleFiles | None, reporter: Reporter,
) -> list[str]:  # fmt: skip
    """Compute floor and cells of one data set; returns one message per failed cell."""
    from bench.evaluation.prepare import floor_split
    from bench.inversion.sweep import invert_runs
    from bench.sweep.matched import ROUNDS, matched_cells
    from bench.sweep.run import sweep, sweep_floor

    evaluation = planned.evaluation
    data, failed = evaluation.data, []
    split = floor_split(data, planned.samples)
    if split is not None:
        failed = sweep_floor(split, evaluation, experiment, reporter).failed
    else:
        reporter.say(
            f"{data.name}: real samples are not measured, which needs {planned.samples} training "
            f"samples: there are {len(data.images.train)}."
        )

    def compute(cells: Sequence[Cell], of: str = "") -> Outcome:
        done = sweep(
            cells, evaluation, experiment, batch=request.batch, device=request.device,
            reporter=reporter, files=saver,
        )  # fmt: skip
        reporter.say(f"{data.name}: {done.summary('cell', of)}")
        return done

    outcome = compute(planned.cells)
    for _ in range(ROUNDS if planned.study.matched else 0):
        cells = matched_cells(planned, experiment)
        if not cells:
            break
        outcome.failed += compute(cells, " of CFG at equal outcome").failed
    for reason, count in Counter(c.skip for c in planned.cells if c.skip).items():
        reporter.say(f"{data.name}: {count} skipped: {reason}.")
    if not planned.study.inversion:
        return failed + outcome.failed
    return failed + outcome.failed + invert_runs(planned, request, experiment, reporter)


def _warn_of_unused_rules(sweeps: Sequence[Sweep], reporter: Reporter) -> None:
    """Print a message for each requested rule with which no cell samples."""
    from methods.rules import CFG

    cells = [cell for s in sweeps for cell in s.cells if cell.guidance.acts]
    used = {cell.rule for cell in cells if not cell.skip} | {CFG.name}
    for rule in dict.fromkeys(r for s in sweeps for r in s.study.rules if r not in used):
        if cells:
            why = "; ".join(dict.fromkeys(c.skip for c in cells if c.rule == rule)) or (
                "only methods that are guided at sampling take one, and none of these runs is of "
                "such a method"
            )
            reporter.say(f"No run uses the rule {rule}: {why}.")


def _price(
    planned: Sweep, request: SweepRequest, experiment: place.Experiment, reporter: Reporter
) -> tuple[float, float]:
    """Print what the missing cells of a data set cost; seconds of one process, of the longest."""
    from rich.table import Table

    from bench.inversion.sweep import price_inversions
    from bench.sweep.price import price_cells
    from bench.system.progress import duration

    lines = price_cells(planned, experiment, request.device, request.batch)
    several = len(planned.study.rules) > 1
    titles = ("run", "rule", "steps", "cells", "skipped", "done", "NFE", "images", "about")
    table = Table(*(title for title in titles if several or title != "rule"))
    for line in lines:
        rule = (line.rule,) if several else ()
        counts = (line.steps, line.cells, line.skipped, line.done)
        large = (f"{line.nfe:,}", f"{line.images:,}")
        table.add_row(line.run, *rule, *map(str, counts), *large, duration(line.seconds))
    reporter.say(f"{planned.evaluation.data.name}, {counted(planned.samples, 'sample')} per cell:")
    reporter.show(table)
    total = sum(line.seconds for line in lines)
    reporter.say(f"Still to do: about {duration(total)} of one worker on {request.device}.")
    if planned.study.inversion:
        total += price_inversions(planned, request, experiment, reporter.say)
    return total, max((line.longest for line in lines), default=0.0)
