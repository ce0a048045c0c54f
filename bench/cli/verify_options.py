"""`bench verify`: only its options; the work is in `bench.cli.verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import (
    DeviceOption,
    ExperimentOption,
    PluginOption,
    ResultsOption,
    begin,
)
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS


def verify_command(
    cells: Annotated[int, typer.Option(min=1, help="Rows to compute again.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of rows.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time, as the sweep had.")] = 256,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
) -> None:
    """Compute a few stored rows again and compare; exit status 1 if one differs."""
    from bench.cli.verify import verify_all

    console, place = begin(plugin, results, experiment)
    verify_all(console, place, cells=cells, seed=seed, device=device, batch=batch)
