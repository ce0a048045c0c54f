"""Data sets that were prepared from files on disk: checked, and read where they are asked for."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from bench.data.base import Dataset, Split
from bench.data.card import (
    CARD,
    IMAGES,
    LABELS,
    STAMP,
    DataCard,
    data_root,
    prepared_names,
    read_data_card,
)
from bench.data.checksum import sha256
from bench.data.rows import FileRows
from bench.data.untrusted import DAMAGE
from bench.system.errors import UserError, said, unknown
from bench.system.files import check_regular, read_whole, write_text
from bench.system.progress import Reporter
from methods.spec import DataSpec
from metrics import EXTRACTORS

DEFAULT_SAMPLES = 2000
PHOTOGRAPHS = "efficientnet-lite0"
PHOTOGRAPHS_FROM = 32
MOST_STAMP = 1 << 16
HASHED_AT_EVERY_START = 256 << 20
"""Bytes of images that are hashed in well under a second, so that no change of time is needed."""


class PreparedDataset(Dataset):
    """The data set in a prepared folder.

    Pixels stay on disk until they are asked for. Both files are compared with the SHA-256 in the
    card when they are opened: up to 256 MiB of images at every start, so that a byte that went bad
    by itself is found as well; larger ones once for every size and time of change, so that a later
    start reads nothing. A UserError says what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = read_data_card(folder)
        self.name = self.card.name
        self.summary = self.card.summary
        self.class_names = self.card.class_names
        channels, height, width = self.card.shape
        large = channels == 3 and min(height, width) >= PHOTOGRAPHS_FROM
        known = large and PHOTOGRAPHS in EXTRACTORS
        self.extractors = (PHOTOGRAPHS, "classifier") if known else ("classifier",)
        # As many real images as that have to be there twice: as reference, and beside it.
        self.default_samples = min(DEFAULT_SAMPLES, len(self.reference), len(self.train))

    @property
    def spec(self) -> DataSpec:
        """Images (C, H, W) and the number of classes."""
        return DataSpec(self.name, self.card.shape, len(self.class_names))

    @cached_property
    def train(self) -> Split:
        """The source's training split, in a fixed shuffled order."""
        return self._split(self.card.train, self.card.train_hash)

    @cached_property
    def reference(self) -> Split:
        """The source's test or validation split, or a hold-out of its training split."""
        return self._split(self.card.reference, self.card.reference_hash)

    def _split(self, rows: tuple[int, int], known_hash: str) -> Split:
        images, labels = self._content
        return replace(Split(images, labels).part(*rows), known_hash=known_hash)

    @cached_property
    def _content(self) -> tuple[FileRows, Tensor]:
        check_unchanged(self.folder, self.card)
        return open_content(self.folder, self.card)


def open_content(folder: Path, card: DataCard) -> tuple[FileRows, Tensor]:
    """Images uint8 (N, C, H, W), whose pixels stay on disk, and labels int64 (N,)."""
    try:
        images, classes = FileRows.open(folder / IMAGES), FileRows.open(folder / LABELS)
    except DAMAGE as error:
        raise UserError(f"{folder} cannot be read ({said(error)}): {_again(folder)}.") from None
    fits = max(card.train[1], card.reference[1]) <= card.n
    fits &= images.shape == (card.n, *card.shape) and images.dtype == torch.uint8
    if not fits or classes.shape != (card.n,) or classes.dtype != torch.int64:
        raise UserError(f"{folder} does not hold what its card says: {_again(folder)}.")
    labels = classes[:]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(card.class_names):
        raise UserError(
            f"{folder} has labels from {low} to {high} for {len(card.class_names)} classes: "
            f"{_again(folder)}."
        )
    return images, labels


def check_unchanged(folder: Path, card: DataCard) -> None:
    """UserError unless both files have the card's SHA-256.

    Of more than `HASHED_AT_EVERY_START` bytes: unless they had it since they last changed.
    """
    current = marks(folder)
    known = read_stamp(folder).get("files") == current
    if known and current[IMAGES][0] > HASHED_AT_EVERY_START:
        return
    check_files(folder, card)
    if not known:
        update_stamp(folder, files=current)


def check_files(folder: Path, card: DataCard) -> None:
    """UserError unless both files have the SHA-256 in the card."""
    reporter = Reporter(Console(stderr=True))
    for name, expected in ((IMAGES, card.images_sha256), (LABELS, card.labels_sha256)):
        if sha256(folder / name, reporter) != expected:
            raise UserError(
                f"{folder / name} has changed since it was prepared (its SHA-256 differs from "
                f"the card): {_again(folder)}."
            )


def verify(folder: Path) -> DataCard:
    """Recompute every hash in the card, whatever was checked before; a UserError names the first.

    Returns the card.
    """
    card = read_data_card(folder)
    current = marks(folder)
    check_files(folder, card)
    images, labels = open_content(folder, card)
    for what, (start, stop), expected in (
        ("train", card.train, card.train_hash),
        ("reference", card.reference, card.reference_hash),
    ):
        if Split(images, labels).part(start, stop).hash != expected:
            raise UserError(
                f"{folder / CARD} has another hash of its {what} split than its images and "
                f"labels: {_again(folder)}."
            )
    update_stamp(folder, files=current)
    return card


def marks(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of both files, by which a change is noticed."""
    found = {}
    for name in (IMAGES, LABELS):
        try:
            check_regular(folder / name)
            status = (folder / name).stat()
        except OSError as error:
            raise UserError(
                f"Cannot read {folder / name} ({error.strerror}): {_again(folder)}."
            ) from None
        found[name] = [status.st_size, status.st_mtime_ns]
    return found


def read_stamp(folder: Path) -> dict[str, object]:
    """What was found in order before, {} if nothing was."""
    try:
        found = json.loads(read_whole(folder / STAMP, MOST_STAMP))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def update_stamp(folder: Path, **found: object) -> None:
    """Add to the stamp, where the folder can be written to."""
    with suppress(OSError):  # a shared, read-only folder is checked at every start
        write_text(folder / STAMP, json.dumps({**read_stamp(folder), **found}) + "\n")


def prepared_folder(name: str, root: Path | None = None) -> Path:
    """The folder of a prepared data set, or a UserError with the closest match."""
    place = data_root() if root is None else root
    names = prepared_names(place)
    if name in names:
        return place / name
    if not names:
        raise UserError(f"There is no prepared data set in {place}: bench data prepare SOURCE.")
    raise unknown("prepared data set", name, names)


def _again(folder: Path) -> str:
    return f"remove {folder} and prepare it again"
