"""Prepared data sets: checked when opened, read on demand."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from bench.data.arrange import HOLD_OUT
from bench.data.base import Dataset, Split
from bench.data.card import (
    CARD,
    IMAGES,
    LABELS,
    STAMP,
    STATISTICS,
    DataCard,
    data_root,
    prepared_names,
    read_data_card,
)
from bench.data.published import check_whole
from bench.data.rows import FileRows
from bench.data.untrusted import DAMAGE
from bench.system.errors import UserError, said, unknown
from bench.system.files import check_regular, read_whole, sha256, write_text
from bench.system.progress import Reporter
from methods.spec import DataSpec
from metrics import EXTRACTORS

DEFAULT_SAMPLES = 2000
PHOTOGRAPHS = "efficientnet-lite0"
PHOTOGRAPHS_FROM = 32
MOST_STAMP = 1 << 16
HASHED_AT_EVERY_START = 256 << 20
"""Bytes of images that are hashed in well under a second, whatever their time of change is."""


class PreparedDataset(Dataset):
    """The data set in a prepared folder.

    Pixels are read on demand. When opened, both files are compared with the SHA-256 in the card: up
    to 256 MiB of images at every start, which also finds bit rot; larger ones only if their size or
    time has changed, so that a later start reads nothing. Raises UserError if they differ.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        card = self.card = read_data_card(folder)
        n, train_n = card.n, card.train[1]
        if card.reference_from == HOLD_OUT:
            train_n = n
        check_whole(card.name, card.shape, len(card.class_names), train_n, n - train_n)
        self.name = self.card.name
        self.summary = self.card.summary
        self.class_names = self.card.class_names
        channels, height, width = self.card.shape
        large = channels == 3 and min(height, width) >= PHOTOGRAPHS_FROM
        known = large and PHOTOGRAPHS in EXTRACTORS
        self.extractors = (PHOTOGRAPHS, "classifier") if known else ("classifier",)
        # The real-versus-real floor needs this many real images besides the reference.
        if not card.images_of:
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
        whole = Split(images, labels, latent=bool(self.card.images_of))
        return replace(whole.part(*rows), known_hash=known_hash)

    @cached_property
    def _content(self) -> tuple[FileRows, Tensor]:
        check_unchanged(self.folder, self.card)
        return open_content(self.folder, self.card)


def open_content(folder: Path, card: DataCard) -> tuple[FileRows, Tensor]:
    """Images uint8 (N, C, H, W), left on disk, and labels int64 (N,)."""
    try:
        images, classes = FileRows.open(folder / IMAGES), FileRows.open(folder / LABELS)
    except DAMAGE as error:
        raise UserError(f"{folder} cannot be read ({said(error)}): {_again(folder)}.") from None
    fits = max(card.train[1], card.reference[1]) <= card.n
    kind = torch.float32 if card.images_of else torch.uint8
    fits &= images.shape == (card.n, *card.shape) and images.dtype == kind
    if not fits or classes.shape != (card.n,) or classes.dtype != torch.int64:
        raise UserError(f"{folder} does not match its card: {_again(folder)}.")
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

    Above `HASHED_AT_EVERY_START` bytes, files that are unchanged since the last check are skipped.
    """
    current = marks(folder)
    known = read_stamp(folder).get("files") == current
    if known and current[IMAGES][0] > HASHED_AT_EVERY_START:
        return
    check_files(folder, card)
    if not known:
        update_stamp(folder, files=current)


def check_statistics(folder: Path, card: DataCard) -> None:
    """UserError unless the statistics file has the SHA-256 in the card."""
    path = folder / STATISTICS
    if not path.is_file() or sha256(path) != card.statistics_sha256:
        raise UserError(
            f"{path} is missing or has changed since it was prepared: {_again(folder)}."
        )


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
    """The card, after recomputing every hash in it; UserError names the first that differs."""
    card = read_data_card(folder)
    if card.statistics_sha256:
        check_statistics(folder, card)
        return card
    current = marks(folder)
    check_files(folder, card)
    images, labels = open_content(folder, card)
    for what, (start, stop), expected in (
        ("train", card.train, card.train_hash),
        ("reference", card.reference, card.reference_hash),
    ):
        whole = Split(images, labels, latent=bool(card.images_of))
        if whole.part(start, stop).hash != expected:
            raise UserError(
                f"The {what} hash in {folder / CARD} does not match the images and labels: "
                f"{_again(folder)}."
            )
    update_stamp(folder, files=current)
    return card


def marks(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of both files."""
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
    """The results of earlier checks, {} if there are none."""
    try:
        found = json.loads(read_whole(folder / STAMP, MOST_STAMP))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def update_stamp(folder: Path, **found: object) -> None:
    """Add to the stamp, if the folder is writable."""
    with suppress(OSError):  # a read-only folder is checked at every start
        write_text(folder / STAMP, json.dumps({**read_stamp(folder), **found}) + "\n")


def prepared_folder(name: str, root: Path | None = None) -> Path:
    """The folder of a prepared data set; UserError, with the closest match, if there is none."""
    place = root or data_root()
    names = prepared_names(place)
    if name in names:
        return place / name
    if not names:
        raise UserError(f"There is no prepared data set in {place}: bench data prepare SOURCE.")
    raise unknown("prepared data set", name, names)


def _again(folder: Path) -> str:
    return f"remove {folder} and prepare it again"
