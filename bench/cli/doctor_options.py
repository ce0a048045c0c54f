"""The command that looks at the machine: doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import (
    DeviceOption,
    DownloadOption,
    OfflineOption,
    PluginOption,
    WeightsOption,
    begin,
)
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS


def doctor_command(
    context: typer.Context,
    extractor: Annotated[
        list[str] | None, typer.Option(help="Try it on a few images; repeatable.")
    ] = None,
    weights: WeightsOption = None,
    download: DownloadOption = False,
    offline: OfflineOption = False,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
) -> None:
    """Say what works here: versions, data, weights files and whether they are whole."""
    from bench.cli.doctor import examine, try_extractors
    from bench.system.offline import network

    context.with_resource(network(offline=offline, download=download))
    console, _ = begin(plugin, Path(DEFAULT_RESULTS), DEFAULT_EXPERIMENT)
    if extractor:
        try_extractors(console, extractor, weights=weights, download=download, device=device)
    elif weights is not None or download:
        from bench.system.errors import UserError

        raise UserError("--weights and --download need --extractor.", code=2)
    else:
        examine(console)
