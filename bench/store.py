"""Rows on disk: one JSON file a cell, durable before the next cell starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError, explain
from bench.files import read_whole, write_text

Z95 = 1.959963984540054
"""Half the width of a normal distribution's 95% interval, in standard deviations."""

Scalar = bool | int | float | str | None
KnobsFrom = Literal["", "default", "suite", "tuned"]
Status = Literal["ok", "skip", "diverged", "failed"]


class Frozen(BaseModel):
    """Base of what is stored: immutable, unknown keys refused, NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(Frozen):
    """One metric of one cell."""

    metric: str
    label: str
    version: int
    direction: Literal["lower", "higher", "none"]
    extractor: str = Field(description="'' where the metric uses none")
    extractor_hash: str
    n: int
    value: float
    se: float | None = Field(None, ge=0, description="standard error, where one is known")
    se_method: str = Field("", description="how that was obtained; '' without one")
    low: float | None = Field(None, description="lower end of the 95% interval, if not by se")
    high: float | None = Field(None, description="upper end of it")
    replicates: tuple[float, ...] = Field(
        (), description="values without one group of samples each, for paired differences"
    )
    signature: str = Field("", description="SHA-256 of what the value depends on beside samples")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval: as measured, else value -+ 1.96 se; None without an error."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if self.se is None:
            return None
        return self.value - Z95 * self.se, self.value + Z95 * self.se


class Density(Frozen):
    """1-D samples as a histogram per class, for the density figure."""

    kind: Literal["density"] = "density"
    edges: tuple[float, ...] = Field(description="bins + 1 edges, shared by all classes")
    counts: tuple[tuple[int, ...], ...] = Field(description="classes x bins")
    means: tuple[tuple[float, ...], ...] = Field(description="exact modes of every class")
    std: float = Field(description="exact standard deviation of every mode")


class Points(Frozen):
    """2-D samples, the first few of a cell."""

    kind: Literal["points"] = "points"
    xy: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    means: tuple[tuple[tuple[float, float], ...], ...] = Field(description="modes of every class")
    std: float


class Images(Frozen):
    """The images of the first sample indices: one PNG strip of square tiles, left to right."""

    kind: Literal["images"] = "images"
    png: str = Field(description="base64 of a PNG of tiles side by side")
    labels: tuple[int, ...]
    class_names: tuple[str, ...]


Preview = Density | Points | Images


class Row(Frozen):
    """One cell: a checkpoint at a guidance scale, a number of steps and a sampling seed.

    `method` 'real' is the floor: real samples that are not the reference, measured like a
    generated set.
    """

    key: str
    status: Status
    reason: str = ""
    experiment: str
    dataset: str
    data_hash: str
    method: str
    run: str = Field(description="name of the training run; rows of one run share a checkpoint")
    train_seed: int
    checkpoint: str = Field(description="SHA-256 of the weights, '' where there are none")
    null_checkpoint: str = Field("", description="SHA-256 of a second, unconditional network's")
    weak_checkpoint: str = Field("", description="SHA-256 of a weaker network's, led away from")
    guidance: float
    rule: str = Field("", description="guidance rule; '' is CFG, the method's own, or off")
    knobs: Mapping[str, Scalar] = Field(
        default_factory=dict, description="settings of the rule, by rule.knob"
    )
    knobs_from: KnobsFrom = Field("", description="where those come from")
    steps: int
    nfe: int
    nfe_weighted: float | None = Field(
        None, description="nfe, weighted by the parameters of the network called"
    )
    seed: int = Field(description="sampling seed")
    n: int
    reference: str = Field(description="name of the real set compared with")
    reference_hash: str
    reference_n: int
    seconds_per_image: float = 0.0
    values: tuple[Value, ...] = ()
    unmeasured: Mapping[str, str] = Field(
        default_factory=dict, description="why there is no value, by metric and extractor"
    )
    preview: Preview | None = Field(None, discriminator="kind")
    created: str = Field(description="UTC, ISO 8601")
    provenance: Mapping[str, str] = Field(default_factory=dict)


def row_path(cells: Path, row_run: str, key: str) -> Path:
    """The file of a cell."""
    return cells / row_run / f"{key[:24]}.json"


def write_row(cells: Path, row: Row) -> Path:
    """Write one row atomically; returns its file."""
    path = row_path(cells, row.run, row.key)
    write_text(path, row.model_dump_json(indent=1) + "\n")
    return path


def read_row(path: Path) -> Row:
    """Read one row; a damaged file is a UserError that names it."""
    try:
        return Row.model_validate_json(read_whole(path))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is not a row of results ({explain(error)}); remove it and sweep again."
        ) from None


def read_rows(cells: Path) -> list[Row]:
    """All rows of an experiment, by path."""
    return [read_row(path) for path in sorted(cells.glob("*/*.json"))]
