"""`bench sweep`: all runs over guidance scales, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    BatchOption,
    DatasetsOption,
    DeviceOption,
    DownloadOption,
    DryRunOption,
    ExperimentOption,
    KnobOption,
    MethodsOption,
    NullOption,
    OfflineOption,
    PluginOption,
    ResultsOption,
    RulesOption,
    SuiteOption,
    TunedOption,
    WeakOption,
    WeightsOption,
    begin,
    refuse_beside_suite,
)
from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    DEFAULT_GUIDANCE,
    DEFAULT_INVERSIONS,
    DEFAULT_RESULTS,
    DEFAULT_SEEDS,
    Experiment,
)
from bench.system.errors import UserError

if TYPE_CHECKING:
    from bench.experiment.suite import Study
    from bench.sweep.plan import Sweep
    from bench.sweep.request import SweepRequest
    from bench.sweep.saving import SampleFiles
    from bench.system.progress import Reporter


def sweep_command(
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales: 1..13, 1..13:2 or 1,1.5,2; 1 is off.")
    ] = DEFAULT_GUIDANCE,
    steps: Annotated[
        str | None, typer.Option(help="Sampling steps, a range; by default the preset's.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=2, help="Samples a cell.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Sampling seeds, a range.")] = DEFAULT_SEEDS,
    method: MethodsOption = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only these runs, by name; repeatable.")
    ] = None,
    dataset: DatasetsOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Only these metrics, of bench list metrics; repeatable."),
    ] = None,
    extractor: Annotated[
        list[str] | None, typer.Option(help="Features for the metrics; repeatable.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Instead of both, such as offline: bench list protocols.")
    ] = None,
    weights: WeightsOption = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    batch: BatchOption = 256,
    rule: RulesOption = None,
    knob: KnobOption = None,
    tuned: TunedOption = False,
    null_checkpoint: NullOption = None,
    weak_checkpoint: WeakOption = None,
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
    save_samples: Annotated[
        str | None,
        typer.Option(help="Also keep each cell's samples: png (folders), zip or npz."),
    ] = None,
    inversion: Annotated[
        bool, typer.Option("--inversion", help="Also invert, reconstruct and edit real images.")
    ] = False,
    inversion_samples: Annotated[
        int, typer.Option(min=2, help="Images to invert, balanced over the classes.")
    ] = DEFAULT_INVERSIONS,
    inversion_guidance: Annotated[
        str | None, typer.Option(help="Scales of edits, a range; by default those of --guidance.")
    ] = None,
) -> None:
    """Sample all trained runs over guidance scales and measure; computes only what is missing."""
    from bench.experiment.protocols import find_protocol
    from bench.experiment.ranges import parse_ints, parse_range
    from bench.experiment.rules import parse_knobs, parse_rules
    from bench.experiment.suite import Study, suite_studies
    from bench.sweep.plan import swept_datasets
    from bench.sweep.request import SweepRequest
    from bench.sweep.saving import SampleFiles
    from bench.system.devices import resolve_device
    from bench.tuning.subject import rules_for

    reporter, found = begin(plugin, results, experiment, offline=offline, download=download)
    where = resolve_device(device)
    if save_samples is not None:
        SampleFiles(found, save_samples)
    if suite is not None:
        refuse_beside_suite(
            guidance=guidance != DEFAULT_GUIDANCE, steps=steps, samples=samples,
            seeds=seeds != DEFAULT_SEEDS, method=method, run=run, dataset=dataset,
            metric=metric, extractor=extractor, protocol=protocol, rule=rule, knob=knob,
            tuned=tuned, inversion=inversion, inversion_guidance=inversion_guidance,
            inversion_samples=inversion_samples != DEFAULT_INVERSIONS,
        )  # fmt: skip
    if not inversion and (inversion_guidance or inversion_samples != DEFAULT_INVERSIONS):
        raise UserError("--inversion-samples and --inversion-guidance need --inversion.", code=2)
    if protocol is not None:
        find_protocol(protocol)
        if metric or extractor:
            raise UserError(
                "--protocol sets extractors and metrics: drop --extractor and --metric, or "
                "--protocol.",
                code=2,
            )
    base = Study(
        dataset="",
        methods=(),
        guidance=parse_range(guidance, "--guidance"),
        rules=parse_rules(rule),
        knobs=parse_knobs(knob or ()),
        tuned=tuned,
        steps=None if steps is None else parse_ints(steps, "--steps", least=1),
        samples=samples,
        sampling_seeds=parse_ints(seeds, "--seeds"),
        metrics=None if metric is None else tuple(metric),
        extractors=None if extractor is None else tuple(extractor),
        protocol=protocol,
        inversion=inversion,
        inversion_samples=inversion_samples,
        inversion_guidance=(
            parse_range(inversion_guidance, "--inversion-guidance") if inversion_guidance else None
        ),
    )
    _check((base,))
    if suite is not None:
        studies, found = suite_studies(suite, found)
        _check(studies)
    else:
        here = swept_datasets(found, method or (), run or ())
        studies = tuple(base.model_copy(update={"dataset": name}) for name in dataset or here)
    request = SweepRequest(
        studies=studies,
        suite=suite,
        methods=tuple(method or ()),
        runs=tuple(run or ()),
        weights=weights,
        download=download,
        null_checkpoint=null_checkpoint,
        weak_checkpoint=weak_checkpoint,
        batch=batch,
        device=where,
        save_samples=save_samples,
        dry_run=dry_run,
        rules=rules_for,
    )
    _sweep(request, found, reporter)


def _check(studies: Sequence[Study]) -> None:
    """UserError for rules or seeds that cannot be swept, before anything is prepared."""
    from bench.experiment.rules import study_rules
    from bench.experiment.seeds import check_seeds

    for study in studies:
        study_rules(study)
        check_seeds(study.sampling_seeds)


def _sweep(request: SweepRequest, asked: Experiment, reporter: Reporter) -> None:
    """Plan, and then say what it costs or execute it."""
    from bench.experiment.place import without_writing
    from bench.experiment.suite import flags
    from bench.sweep.plan import plan_sweeps
    from bench.sweep.saving import SampleFiles
    from bench.training.extra_network import find_extra_networks
    from bench.training.run import no_run, refuse_unused

    with without_writing(asked) if request.dry_run else nullcontext(asked) as experiment:
        sweeps, left_out = plan_sweeps(request, experiment, reporter.say)
        for line in _unused_rules(sweeps):
            reporter.say(line)
        if not any(planned.targets for planned in sweeps):
            method = request.methods[0] if request.methods else None
            names = [study.dataset for study in request.studies]
            only = names[0] if len(names) == 1 and request.suite is None else None
            raise no_run(experiment, method, only, request.suite)
        null, weak = request.null_checkpoint, request.weak_checkpoint
        networks = find_extra_networks(experiment, null=null, weak=weak)
        refuse_unused(networks, [found for s in sweeps for found, _ in s.targets])
        if weak and not any(c.weak_checkpoint for s in sweeps for c in s.cells):
            reporter.say("No rule here uses a weaker network, as autoguidance does.")
        if request.dry_run:
            for planned in sweeps:
                _price(planned, request, experiment, reporter)
            if left_out:
                reporter.say("What was left out above is not in these times.")
            reporter.say("Nothing was computed.")
            return
        saver = None
        if request.save_samples is not None:
            saver = SampleFiles(experiment, request.save_samples)
            for planned in sweeps:
                saver.check([c for c in planned.cells if not c.skip], planned.evaluation.data)
        failed = [
            line for s in sweeps for line in _execute(s, request, experiment, saver, reporter)
        ]
    for line in failed:
        reporter.say(f"Failed: {line}")
    if failed:
        raise UserError(
            f"{len(failed)} cells failed. Run the same command to try them again; the others are "
            "kept."
        )
    reporter.say(f"Rows are in {experiment.cells}.")
    if saver is not None:
        reporter.say(f"Samples are in {experiment.samples}.")
    reporter.say(f"Next: bench report{flags(experiment, request.suite)}")


def _execute(
    planned: Sweep,
    request: SweepRequest,
    experiment: Experiment,
    saver: SampleFiles | None,
    reporter: Reporter,
) -> list[str]:
    """Floor and cells of one data set; returns one sentence a failed cell."""
    from bench.inversion.study import invert_runs
    from bench.sweep.execute import floor_row, sweep

    evaluation = planned.evaluation
    data = evaluation.data
    if floor_row(data, evaluation, experiment, planned.samples, reporter.say) is None:
        reporter.say(
            f"{data.name}: no real-versus-real floor, which needs {planned.samples} training "
            f"samples; there are {len(data.train)}."
        )
    outcome = sweep(
        planned.cells, evaluation, experiment, batch=request.batch, device=request.device,
        reporter=reporter, files=saver,
    )  # fmt: skip
    reporter.say(f"{data.name}: {outcome.summary('cells')}")
    for reason, count in Counter(c.skip for c in planned.cells if c.skip).items():
        reporter.say(f"{data.name}: {count} skipped: {reason}.")
    if not planned.study.inversion:
        return outcome.failed
    return outcome.failed + invert_runs(planned, request, experiment, reporter)


def _unused_rules(sweeps: Sequence[Sweep]) -> list[str]:
    """A sentence for each rule that was asked for and that no cell of the sweeps samples with."""
    from methods.rules import CFG

    asked = dict.fromkeys(r for s in sweeps for r in s.study.rules if r != CFG.name)
    cells = [cell for s in sweeps for cell in s.cells if not cell.guidance.is_off]
    used = {cell.rule for cell in cells if not cell.skip}
    lines = []
    for rule in asked:
        if rule in used or not cells:
            continue
        reasons = list(dict.fromkeys(c.skip for c in cells if c.rule == rule))
        why = "; ".join(reasons) or (
            "only methods that are guided at sampling take one, and none of these runs is of such "
            "a method"
        )
        lines.append(f"No run uses the rule {rule}: {why}.")
    return lines


def _price(
    planned: Sweep, request: SweepRequest, experiment: Experiment, reporter: Reporter
) -> None:
    from rich.table import Table

    from bench.inversion.study import price_inversions
    from bench.sweep.price import price_cells
    from bench.system.progress import duration

    several = len(planned.study.rules) > 1
    of_rule = ("rule",) if several else ()
    table = Table("run", *of_rule, "steps", "cells", "skipped", "done", "NFE", "images", "about")
    total = 0.0
    for line in price_cells(planned, experiment, request.device, request.batch):
        total += line.seconds
        table.add_row(
            line.run, *((line.rule,) if several else ()), str(line.steps), str(line.cells),
            str(line.skipped), str(line.done), f"{line.nfe:,}", f"{line.images:,}",
            duration(line.seconds),
        )  # fmt: skip
    reporter.say(f"{planned.evaluation.data.name}, {planned.samples} samples a cell:")
    reporter.show(table)
    reporter.say(f"Still to do: about {duration(total)} on {request.device}.")
    if planned.study.inversion:
        price_inversions(planned, request, experiment, reporter.say)
