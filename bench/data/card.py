"""The card of a prepared data set, its folder, and the names that it may have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bench.system.bounds import read_json
from bench.system.errors import UserError, check_name, counted
from methods.settings import Settings

DATA_FOLDER_VARIABLE = "GUIDANCE_BENCH_DATA"
CARD, IMAGES, LABELS, STAMP = "card.json", "images.npy", "labels.npy", "stamp.json"
STATISTICS = "statistics.npz"
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|zip|gz|bz2|xz)$", re.IGNORECASE)
_OFFICIAL = {
    "cifar-10-python": "cifar10",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
}


class DataCard(Settings):
    """Content and origin of a prepared data set.

    `train` and `reference` are ranges of rows [start, stop). `source_sha256` is the hash of a
    source file, `source_listing` that of the names and sizes in a folder. `converted` counts image
    files of other modes than the set's by mode, such as grey ones converted to RGB.
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
    oddities: Mapping[str, int] = Field(default_factory=dict, description="as in bench.data.decode")
    n: int = Field(ge=0)
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: tuple[int, int]
    reference: tuple[int, int]
    reference_from: str = Field(description="the source's split, or 'hold-out'")
    left_out: int = Field(0, description="images of other splits")
    ignored: str = Field("", description="the files that are no images of the set, in a sentence")
    images_of: str = Field("", description="the data set of the images of latents")
    decoder: str = Field("", description="what makes images of latents, as in bench.data.decoder")
    statistics_sha256: str = Field("", description="of a file instead of images")
    extractor: str = Field("", description="of that file")
    images_sha256: str
    labels_sha256: str
    train_hash: str
    reference_hash: str
    pillow: str
    numpy: str

    @model_validator(mode="after")
    def _rows_are_there(self) -> DataCard:
        # Statistics stand for all images, and latents have no reference of their own.
        neither = bool(self.statistics_sha256)
        untested = neither or bool(self.images_of)
        for (start, stop), empty in ((self.train, neither), (self.reference, untested)):
            if not 0 <= start <= stop or (start == stop) != empty:
                raise ValueError(f"rows {start} to {stop}")
        if min(self.shape) < 1 or not self.class_names:
            raise ValueError(f"shape {self.shape} and {len(self.class_names)} classes")
        return self

    @property
    def mode(self) -> str:
        """What `summary` calls the channels: grey or RGB."""
        return "grey" if self.shape[0] == 1 else "RGB"

    @property
    def summary(self) -> str:
        """One line for lists."""
        _, height, width = self.shape
        train, reference = (b - a for a, b in (self.train, self.reference))
        classes = counted(len(self.class_names), "class")
        if self.statistics_sha256:
            return f"{self.title}: statistics of images {height}x{width}, {classes}"
        if self.images_of:
            return (
                f"{self.title}: {train:,} training latents {self.shape} of {self.images_of} for "
                f"the decoder {self.decoder}, {classes}"
            )
        return (
            f"{self.title}: {train:,} training and {reference:,} reference images, "
            f"{height}x{width} {self.mode}, {classes}"
        )


def data_root() -> Path:
    """The folder of prepared data sets: $GUIDANCE_BENCH_DATA, or a per-user cache folder."""
    if own := os.environ.get(DATA_FOLDER_VARIABLE):
        return Path(own).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "guidance-bench" / "data"


def prepared_names(root: Path | None = None) -> list[str]:
    """The names of all prepared data sets, sorted."""
    found = (card.parent for card in (root or data_root()).glob(f"*/{CARD}") if card.is_file())
    return sorted(folder.name for folder in found if not folder.name.startswith("."))


def read_data_card(folder: Path) -> DataCard:
    """The card in the folder of a prepared data set; UserError if it is damaged or foreign."""
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


def name_of(source: Path) -> str:
    """The default name of a data set: the file's or folder's, without archive suffixes."""
    name = source.resolve().name
    while (shorter := _ARCHIVE.sub("", name)) != name:
        name = shorter
    return _OFFICIAL.get(name, name)


def prepared_cards(root: Path | None = None) -> list[DataCard]:
    """The cards of all prepared data sets, by name."""
    return [read_data_card((root or data_root()) / name) for name in prepared_names(root)]


def check_data_name(name: str) -> str:
    """`name` if a prepared data set may have it; UserError otherwise."""
    from bench.data import DATASETS

    check_name("data set", name)
    if name in DATASETS:
        raise UserError(
            f"The name {name!r} is taken by a built-in data set or a plugin; choose another with "
            "--dataset.",
            code=2,
        )
    return name
