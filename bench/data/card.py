"""What is recorded beside a prepared data set, and where prepared data sets lie."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bench.system.bounds import read_json
from bench.system.errors import UserError
from methods import Settings

DATA_FOLDER_VARIABLE = "GUIDANCE_BENCH_DATA"
CARD, IMAGES, LABELS, STAMP = "card.json", "images.npy", "labels.npy", "stamp.json"
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""In the official order, which is the alphabetical one."""
CIFAR10_SHAPE = (3, 32, 32)
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|zip|gz|bz2|xz)$", re.IGNORECASE)
_OFFICIAL = {
    "cifar-10-python": "cifar10",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
}


class DataCard(Settings):
    """Content and origin of a prepared data set.

    `train` and `reference` are ranges of rows [start, stop). `source_sha256` is of a source that
    is one file, `source_listing` of the names and sizes within a folder. `converted` counts image
    files of other modes than the set's by their mode, such as grey ones that became RGB.
    """

    format: Literal[1] = 1
    name: str
    title: str
    source: str
    source_sha256: str = ""
    source_listing: str = ""
    kind: str
    size: int | None
    crop: Literal["center", "none"] | None
    resize: Literal["box", "bicubic"] | None
    lossy: bool
    converted: Mapping[str, int] = Field(default_factory=dict)
    n: int = Field(ge=1)
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: tuple[int, int]
    reference: tuple[int, int]
    reference_from: str = Field(description="the source's split, or 'hold-out'")
    left_out: int = 0
    images_sha256: str
    labels_sha256: str
    train_hash: str
    reference_hash: str
    pillow: str
    numpy: str

    @model_validator(mode="after")
    def _rows_are_there(self) -> DataCard:
        for start, stop in (self.train, self.reference):
            if not 0 <= start < stop:
                raise ValueError(f"rows {start} to {stop}")
        if min(self.shape) < 1 or not self.class_names:
            raise ValueError(f"shape {self.shape} and {len(self.class_names)} classes")
        return self

    @property
    def summary(self) -> str:
        """One line for lists."""
        channels, height, width = self.shape
        train, reference = (b - a for a, b in (self.train, self.reference))
        return (
            f"{self.title}: {train:,} training and {reference:,} reference images, "
            f"{height}x{width} {'grey' if channels == 1 else 'RGB'}, "
            f"{len(self.class_names)} classes"
        )


def data_root() -> Path:
    """Where prepared data sets lie: $GUIDANCE_BENCH_DATA, or a per-user cache folder."""
    own = os.environ.get(DATA_FOLDER_VARIABLE)
    if own:
        return Path(own).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "guidance-bench" / "data"


def prepared_names(root: Path | None = None) -> list[str]:
    """The names of all prepared data sets, sorted."""
    folder = data_root() if root is None else root
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry / CARD).is_file()
    )


def read_data_card(folder: Path) -> DataCard:
    """The card in a prepared data set's folder; a damaged or foreign one is a UserError."""
    path = folder / CARD
    card = read_json(
        path,
        DataCard.model_validate_json,
        "a data set's card of this version",
        f"remove {folder} and prepare it again",
    )
    if card.name != folder.name:
        raise UserError(
            f"{folder} holds the data set {card.name!r}: a prepared data set keeps its name; "
            f"prepare it again as {folder.name!r}."
        )
    return card


def title_of(name: str, class_names: tuple[str, ...], shape: tuple[int, ...], lossy: bool) -> str:
    """What people are shown: CIFAR-10 by its classes and shape, otherwise the name."""
    if class_names == CIFAR10_CLASSES and shape == CIFAR10_SHAPE:
        return "CIFAR-10 (JPEG)" if lossy else "CIFAR-10"
    return name


def name_of(source: Path) -> str:
    """The name of a data set by its source: the file's or folder's, without archive suffixes."""
    name = source.resolve().name
    while (shorter := _ARCHIVE.sub("", name)) != name:
        name = shorter
    return _OFFICIAL.get(name, name)


def prepared_cards(root: Path | None = None) -> list[DataCard]:
    """The cards of all prepared data sets, by name."""
    place = data_root() if root is None else root
    return [read_data_card(place / name) for name in prepared_names(place)]
