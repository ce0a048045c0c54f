"""Rows of inversions on disk: one JSON file a run and guidance scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from bench.experiment.rows import Frozen, Moment, Sealed, Status, seal, unseal
from bench.system.bounds import Count, Name, Number, Text
from bench.system.errors import UserError, explain
from bench.system.files import read_whole, write_text


class Score(Frozen):
    """One measure of reconstruction; `value` is None where `reason` says why."""

    name: Name
    label: Name
    value: Number | None = None
    se: Number | None = Field(None, description="std / sqrt(n) over images; None for the authors'")
    reason: Text = ""


class Pair(Frozen):
    """Edits from one class to another, and how many the judge takes for the class asked for."""

    source: Count
    target: Count
    n: Count
    right: Count


class Share(Frozen):
    """A share in [0, 1] with the 95% interval of Wilson (1927)."""

    right: Count
    n: Count = Field(ge=1)
    low: Number
    high: Number

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.n


class Latents(Frozen):
    """Latents over sigma_max beside N(0, 1); see `metrics.latents.LatentStats`."""

    sigma_max: Number
    mean: Number
    std: Number
    spread_of_means: Number
    spread_of_stds: Number
    skewness: Number
    excess_kurtosis: Number
    ks: Number
    neighbours: Number


class EditGrid(Frozen):
    """A PNG of square tiles: a row an image, a column what became of it. Empty tiles are white."""

    png: str = Field(description="base64")
    columns: tuple[Name, ...]
    rows: tuple[Name, ...] = Field(description="class of every source")


class InversionRow(Sealed):
    """A run inverting, reconstructing and editing real images at one guidance scale of editing.

    Images are the first of the reference split, balanced over its classes. Reconstruction is at
    g = 1 under the image's own class. MSE is of floats in [-1, 1]; the other scores are of uint8
    images, as a file would hold them.
    """

    key: Name
    status: Status
    reason: Text = ""
    experiment: Name
    dataset: Name
    data_hash: Name
    method: Name
    run: Name
    train_seed: Count
    checkpoint: Name
    guidance: Number = Field(description="of editing; 1 is off")
    n: Count = Field(description="images inverted")
    reference: Name
    reference_hash: Name
    judge: Name = ""
    judge_hash: Name = ""
    authors_batch: Count = Field(description="images a batch of the scores counted by batch")
    inversion_nfe: Count = 0
    reconstruction_nfe: Count = 0
    edit_nfe: Count = 0
    inversion_seconds: Number = Field(0.0, description="an image")
    edit_seconds: Number = Field(0.0, description="an edit")
    scores: tuple[Score, ...] = ()
    exact: Count = Field(0, description="images reconstructed without error, in uint8")
    latents: Latents | None = None
    pairs: tuple[Pair, ...] = ()
    edits: Share | None = Field(None, description="edits recognised, over all pairs")
    real: Share | None = Field(None, description="the same images, unedited: the judge's ceiling")
    preview: EditGrid | None = None
    created: Moment
    provenance: Mapping[Name, Text] = Field(default_factory=dict)


def inversion_path(folder: Path, run: str, key: str) -> Path:
    """The file of a row."""
    return folder / run / f"{key[:24]}.json"


def write_inversion(folder: Path, row: InversionRow) -> Path:
    """Write one row atomically; returns its file."""
    path = inversion_path(folder, row.run, row.key)
    return write_text(path, seal(row))


def read_inversion(path: Path) -> InversionRow:
    """Read one row; a damaged file is a UserError that names it."""
    try:
        return unseal(InversionRow, read_whole(path), path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is not a row of inversions ({explain(error)}); remove it and sweep again."
        ) from None


def read_inversions(folder: Path) -> list[InversionRow]:
    """All rows of an experiment, by path."""
    return [read_inversion(path) for path in sorted(folder.glob("*/*.json"))]
