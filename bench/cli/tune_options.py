"""The command that tunes guidance rules."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import (
    DeviceOption,
    DownloadOption,
    DryRunOption,
    ExperimentOption,
    NullOption,
    OfflineOption,
    PluginOption,
    ResultsOption,
    RulesOption,
    SuiteOption,
    WeakOption,
    WeightsOption,
    begin,
)
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS

MOST_TRIALS = 1000


def tune_command(
    context: typer.Context,
    rule: RulesOption = None,
    budget: Annotated[
        int, typer.Option(min=1, max=MOST_TRIALS, help="Trials a run and rule, old ones counted.")
    ] = 20,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Only these methods.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="Only these data sets.")
    ] = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales to average over, a range without 1.")
    ] = "4,8,13",
    metric: Annotated[
        str | None, typer.Option(help="What to improve; by default fd, or w1 of toys.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(help="Its features; by default the data set's first.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=2, help="Samples a scale of each trial.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps; by default the preset's first.")
    ] = None,
    seed_block: Annotated[
        int, typer.Option(min=0, help="Which of the sampling seeds that no sweep may use.")
    ] = 0,
    weights: WeightsOption = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")] = 256,
    null_checkpoint: NullOption = None,
    weak_checkpoint: WeakOption = None,
    suite: SuiteOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Search the knobs of guidance rules, on seeds that no sweep uses; goes on after a stop."""
    from bench.cli.tune import Wanted, tune_all
    from bench.system.offline import network

    console, place = begin(plugin, results, experiment)
    context.with_resource(network(offline=offline, download=download))
    wanted = Wanted(
        rules=rule,
        methods=method,
        datasets=dataset,
        guidance=guidance,
        metric=metric,
        extractor=extractor,
        samples=samples,
        steps=steps,
        budget=budget,
        block=seed_block,
        suite=suite,
        null_checkpoint=null_checkpoint,
        weak_checkpoint=weak_checkpoint,
        weights=weights,
        download=download,
    )
    tune_all(console, place, wanted, batch=batch, device=device, dry_run=dry_run)
