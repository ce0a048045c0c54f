"""Rows of inversions on disk: one JSON file per run and guidance scale."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.experiment.rows import Frozen, StoredRow, read_as
from bench.system.bounds import Count, Name, Number, Text


class Score(Frozen):
    """One measure of reconstruction; if `value` is None, `reason` says why."""

    name: Name
    label: Name
    value: Number | None = None
    se: Number | None = Field(None, description="std / sqrt(n) over images; None for the authors'")
    reason: Text = ""


class Pair(Frozen):
    """Edits from one class to another, and how many the judge assigns to the target class."""

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
    """Latents divided by sigma_max, compared with N(0, 1); see `metrics.latents.LatentStats`."""

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
    """A PNG of square tiles: a row per image, a column per result. Empty tiles are white."""

    png: str = Field(description="base64")
    columns: tuple[Name, ...]
    rows: tuple[Name, ...] = Field(description="class of every source")


class InversionRow(StoredRow):
    """Inversion, reconstruction and editing of real images by a run at one guidance scale.

    Images are the first of the reference split, balanced over its classes. Reconstruction is at
    g = 1 with the image's own class. MSE is of floats in [-1, 1], other scores of uint8 images.
    """

    judge: Name = ""
    judge_hash: Name = ""
    authors_batch: Count = Field(description="images per batch, for scores by batch")
    inversion_nfe: Count = 0
    reconstruction_nfe: Count = 0
    edit_nfe: Count = 0
    inversion_seconds: Number = Field(0.0, description="per image")
    edit_seconds: Number = Field(0.0, description="per edit")
    scores: tuple[Score, ...] = ()
    exact: Count = Field(0, description="images reconstructed without error, in uint8")
    latents: Latents | None = None
    pairs: tuple[Pair, ...] = ()
    edits: Share | None = Field(None, description="edits recognised, over all pairs")
    real: Share | None = Field(None, description="the same images, unedited: the judge's ceiling")
    preview: EditGrid | None = None


def read_inversion(path: Path) -> InversionRow:
    """Read the row of an inversion."""
    return read_as(InversionRow, path)


def read_inversions(folder: Path) -> list[InversionRow]:
    """All rows of an experiment, by path."""
    return [read_inversion(path) for path in sorted(folder.glob("*/*.json"))]
