"""Rows of inversions on disk: one JSON file a run and guidance scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from bench.errors import UserError, explain
from bench.files import read_whole, write_text
from bench.store import Frozen, Status


class Score(Frozen):
    """One measure of reconstruction; `value` is None where `reason` says why."""

    name: str
    label: str
    value: float | None = None
    se: float | None = Field(None, description="std / sqrt(n) over images; None for the authors'")
    reason: str = ""


class Pair(Frozen):
    """Edits from one class to another, and how many the judge takes for the class asked for."""

    source: int
    target: int
    n: int
    right: int


class Share(Frozen):
    """A share in [0, 1] with the 95% interval of Wilson (1927)."""

    right: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.n


class Latents(Frozen):
    """Latents over sigma_max beside N(0, 1); see `metrics.latents.LatentStats`."""

    sigma_max: float
    mean: float
    std: float
    spread_of_means: float
    spread_of_stds: float
    skewness: float
    excess_kurtosis: float
    ks: float
    neighbours: float


class EditGrid(Frozen):
    """A PNG of square tiles: a row an image, a column what became of it. Empty tiles are white."""

    png: str = Field(description="base64")
    columns: tuple[str, ...]
    rows: tuple[str, ...] = Field(description="class of every source")


class InversionRow(Frozen):
    """A run inverting, reconstructing and editing real images at one guidance scale of editing.

    Images are the first of the reference split, balanced over its classes. Reconstruction is at
    g = 1 under the image's own class. MSE is of floats in [-1, 1]; the other scores are of uint8
    images, as a file would hold them.
    """

    key: str
    status: Status
    reason: str = ""
    experiment: str
    dataset: str
    data_hash: str
    method: str
    run: str
    train_seed: int
    checkpoint: str
    guidance: float = Field(description="of editing; 1 is off")
    n: int = Field(description="images inverted")
    reference: str
    reference_hash: str
    judge: str = ""
    judge_hash: str = ""
    authors_batch: int = Field(description="images a batch of the scores counted by batch")
    inversion_nfe: int = 0
    reconstruction_nfe: int = 0
    edit_nfe: int = 0
    inversion_seconds: float = Field(0.0, description="an image")
    edit_seconds: float = Field(0.0, description="an edit")
    scores: tuple[Score, ...] = ()
    exact: int = Field(0, description="images reconstructed without error, in uint8")
    latents: Latents | None = None
    pairs: tuple[Pair, ...] = ()
    edits: Share | None = Field(None, description="edits recognised, over all pairs")
    real: Share | None = Field(None, description="the same images, unedited: the judge's ceiling")
    preview: EditGrid | None = None
    created: str
    provenance: Mapping[str, str] = Field(default_factory=dict)


def inversion_path(folder: Path, run: str, key: str) -> Path:
    """The file of a row."""
    return folder / run / f"{key[:24]}.json"


def write_inversion(folder: Path, row: InversionRow) -> Path:
    """Write one row atomically; returns its file."""
    path = inversion_path(folder, row.run, row.key)
    return write_text(path, row.model_dump_json(indent=1) + "\n")


def read_inversion(path: Path) -> InversionRow:
    """Read one row; a damaged file is a UserError that names it."""
    try:
        return InversionRow.model_validate_json(read_whole(path))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is not a row of inversions ({explain(error)}); remove it and sweep again."
        ) from None


def read_inversions(folder: Path) -> list[InversionRow]:
    """All rows of an experiment, by path."""
    return [read_inversion(path) for path in sorted(folder.glob("*/*.json"))]
