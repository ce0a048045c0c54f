"""`bench tune`: a search for the knobs of guidance rules."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.sharing import choose_sharing
from bench.experiment import place
from bench.system.errors import UserError, counted, unknown

if TYPE_CHECKING:
    from bench.experiment.suite import Study
    from bench.system.progress import Reporter
    from bench.tuning.request import TuneRequest
    from bench.tuning.store import Tuned
    from bench.tuning.tune import Job

MOST_TRIALS = 1000
AIMS = ("matched", "metric")


def tune_command(
    rule: options.Rules = None,
    budget: Annotated[
        int, typer.Option(min=1, max=MOST_TRIALS, help="Trials per run and rule, old ones too.")
    ] = 20,
    method: options.Methods = None,
    dataset: options.Datasets = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales to average over, a range without 1.")
    ] = "4,8,13",
    metric: Annotated[
        str | None, typer.Option(help="What to improve; by default fd, or w1 of toys.")
    ] = None,
    aim: Annotated[
        str,
        typer.Option(
            help="matched: the metric over that of CFG at equal outcome; metric: the metric itself."
        ),
    ] = "matched",
    extractor: Annotated[
        str | None, typer.Option(help="Its features; by default the data set's first.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            "-n",
            min=2,
            max=place.SAMPLES_MOST,
            help="Samples per scale of each trial.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=place.STEPS_MOST, help="Sampling steps; by default the preset's first."
        ),
    ] = None,
    seed_block: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Block of the sampling seeds reserved for tuning."),
    ] = 0,
    weights: options.Weights = None,
    download: options.Download = False,
    offline: options.Offline = False,
    batch: options.Batch = 256,
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
) -> None:
    """Search the knobs of guidance rules, on seeds that no sweep uses; continues after a stop."""
    from bench.experiment.ranges import parse_range
    from bench.experiment.suite import suite_studies
    from bench.sweep.plan import swept_datasets
    from bench.system.devices import resolve_device
    from bench.tuning.aim import check_scales
    from bench.tuning.plan import plan_jobs, price
    from bench.tuning.request import TuneRequest

    reporter, found = options.begin(plugin, results, experiment, offline=offline, download=download)
    sharing = choose_sharing(workers, launcher, slurm, ray, suite, detach=detach)
    scales = parse_range(guidance, "--guidance")
    check_scales(scales)
    if aim not in AIMS:
        raise unknown("aim", aim, AIMS)
    request = TuneRequest(
        scales=scales, rule_names=tuple(rule or ()), methods=tuple(method or ()),
        datasets=tuple(dataset or ()), metric=metric, matched=aim == "matched", extractor=extractor,
        samples=samples,
        steps=steps, budget=budget, block=seed_block, suite=suite,
        null_checkpoint=null_checkpoint, weak_checkpoint=weak_checkpoint, weights=weights,
        download=download, batch=batch,
        device=resolve_device(sharing.device(device)), dry_run=dry_run,
    )  # fmt: skip
    studies: Sequence[Study] = ()
    if suite is not None:
        options.refuse_beside_suite(rule=rule, method=method, dataset=dataset, steps=steps)
        studies, found = suite_studies(suite, found)
    if not dry_run:
        named = [study.dataset for study in studies] or request.datasets
        datasets = named or swept_datasets(found, request.methods)
        sharing.begin(request.device, found, reporter, datasets)
        _tune(request, plan_jobs(request, studies, found, reporter.say), found, reporter)
        return
    with place.without_writing(found) as found:
        for job in plan_jobs(request, studies, found, reporter.say):
            reporter.say(price(job, found, budget, batch, request.device))
    reporter.say("Nothing was computed.")


def _tune(
    request: TuneRequest, jobs: Sequence[Job], experiment: place.Experiment, reporter: Reporter
) -> None:
    """Search for each run and rule in turn, and print the results."""
    from bench.experiment.suite import flags
    from bench.tuning.target import NoTarget
    from bench.tuning.tune import tune
    from methods.rules import CFG

    problems: list[str] = []
    left_out: dict[str, str] = {}
    for job in jobs:
        if job.run.name in left_out:
            continue
        try:
            result = tune(
                job, experiment, request.budget,
                batch=request.batch, device=request.device, reporter=reporter,
            )  # fmt: skip
        except NoTarget as error:
            left_out[job.run.name] = f"{job.run.name} is left out: {error}"
            continue
        except UserError as error:
            problems.append(str(error))
            continue
        _show(reporter, job, result, experiment)
    if problems or len(left_out) == len({job.run.name for job in jobs}):
        raise UserError(" ".join([*problems, *left_out.values()]))
    for line in left_out.values():
        reporter.say(line)
    if request.suite is not None:
        suite = flags(experiment, request.suite)
        reporter.say(f"Next, with tuned = true in its studies: bench sweep{suite}")
        return
    rules = ",".join(dict.fromkeys([CFG.name, *(job.rule.name for job in jobs)]))
    same = f"{_same_runs(request)}{flags(experiment)}"
    reporter.say(f"Next: bench sweep --rule {rules} --tuned{same}")


def _same_runs(request: TuneRequest) -> str:
    """The options with which a sweep finds the same runs."""
    from bench.plugins.load import plugin_options

    parts = [f" --method {name}" for name in request.methods]
    parts += [f" --dataset {name}" for name in request.datasets]
    parts.append(plugin_options())
    extra = {"null": request.null_checkpoint, "weak": request.weak_checkpoint}
    parts += [f" --{kind}-checkpoint {shlex.quote(name)}" for kind, name in extra.items() if name]
    return "".join(parts)


def _show(reporter: Reporter, job: Job, result: Tuned, experiment: place.Experiment) -> None:
    from bench.tuning.aim import shown
    from bench.tuning.store import result_path
    from bench.tuning.target import label_of

    values = {(k := f"{axis.rule}.{axis.knob}"): result.knobs[k] for axis in job.space.axes}
    knobs = ", ".join(
        f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()
    )
    failed = sum(trial.status != "ok" for trial in result.trials)
    what = job.aim.what(label_of(result.outcome))
    reporter.say(
        f"{job.name}: {shown(job.aim, result.score)} with {knobs}; "
        f"{shown(job.aim, result.default_score)} by default ({what}). The best of "
        f"{counted(len(result.trials), 'trial')}"
        + (f", {failed} of which failed or diverged" if failed else "")
        + f": {result_path(experiment.tuned, result.run, result.rule)}",
    )
    if len(result.trials) < result.budget:
        reporter.say(f"{job.name}: there are no further settings to try.")
