"""Rows on disk: one JSON file per cell, durable before the next cell starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bench.experiment.identity import digest
from bench.system.bounds import Count, Name, Number, Scalar, Text, read_json
from bench.system.errors import UserError
from bench.system.files import write_text
from methods.settings import Grid, Solver
from metrics.about import About


def _parses(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Z95 = 1.959963984540054
"""Half the width of a normal distribution's 95% interval, in standard deviations."""

ALONE = 0.8
"""Processor time over seconds, from which sampling had the processor for itself."""

Moment = Annotated[str, Field(max_length=40), AfterValidator(_parses)]
KnobsFrom = Literal["", "default", "suite", "tuned"]
Labels = Literal["balanced", "random", "reference"]
"""Classes of samples: in turn, drawn uniformly, or those of the reference images in turn."""
Status = Literal["ok", "skip", "diverged", "failed"]


class Frozen(BaseModel):
    """Base of stored models: immutable; unknown keys and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Changed(UserError):
    """A row's file was changed after it was written; `how` is the message without the path."""

    how = "it was changed since it was written: its content does not match its stored SHA-256"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} cannot be used: {self.how}; remove it and sweep again.")


class Value(Frozen):
    """One metric of one cell."""

    metric: Name
    label: Name
    version: Count
    direction: Literal["lower", "higher", "none"]
    extractor: Name = Field(description="'' if the metric uses none")
    extractor_hash: Name
    n: Count
    value: Number
    se: Number | None = Field(None, ge=0, description="standard error, if known")
    se_method: Name = Field("", description="how it was estimated; '' if unknown")
    low: Number | None = Field(None, description="lower end of the 95% interval, if not by se")
    high: Number | None = Field(None, description="upper end of it")
    replicates: tuple[Number, ...] = Field(
        (), description="values without one group of samples each, for paired differences"
    )
    signature: Name = Field("", description="SHA-256 of what it depends on besides samples")
    about: About | None = Field(None, description="facts of the metric; None in older rows")

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
    edges: tuple[Number, ...] = Field(description="bins + 1 edges, shared by all classes")
    counts: tuple[tuple[Count, ...], ...] = Field(description="classes x bins")
    means: tuple[tuple[Number, ...], ...] = Field(description="exact modes of every class")
    std: Number = Field(description="exact standard deviation of every mode")


class Points(Frozen):
    """2-D samples, the first few of a cell."""

    kind: Literal["points"] = "points"
    xy: tuple[tuple[Number, Number], ...]
    labels: tuple[Count, ...]
    means: tuple[tuple[tuple[Number, Number], ...], ...] = Field(description="modes of every class")
    std: Number


class Images(Frozen):
    """The images of the first sample indices: one PNG strip of square tiles, left to right."""

    kind: Literal["images"] = "images"
    png: str = Field(description="base64 of a PNG of tiles side by side")
    labels: tuple[Count, ...]
    class_names: tuple[Name, ...]


Preview = Density | Points | Images


class StoredRow(Frozen):
    """Fields shared by rows of cells and of inversions.

    A row is stored with a hash of its content, so that a later change of a number is found.
    """

    content_sha256: Name = Field("", exclude=True, description="only in the file")
    key: Name
    status: Status
    reason: Text = ""
    experiment: Name
    dataset: Name
    data_hash: Name
    method: Name
    run: Name = Field(description="name of the training run; rows of one run share a checkpoint")
    train_seed: Count
    checkpoint: Name = Field(description="SHA-256 of the weights, '' if there are none")
    guidance: Number = Field(description="of sampling or editing; 1 is off")
    n: Count = Field(description="samples, or images inverted")
    reference: Name = Field(description="name of the real set compared with")
    reference_hash: Name
    created: Moment = Field(description="UTC, ISO 8601")
    provenance: Mapping[Name, Text] = Field(default_factory=dict)


class Row(StoredRow):
    """One cell: a checkpoint at a guidance scale, a number of steps and a sampling seed.

    `method` 'real' is the floor: real samples that are not the reference, measured like a
    generated set.
    """

    null_checkpoint: Name = Field("", description="SHA-256 of an unconditional network's weights")
    weak_checkpoint: Name = Field("", description="SHA-256 of a weaker network's weights")
    decoder: Name = Field("", description="hash of what makes images of latents; '' for pixels")
    code: Name = Field("", description="SHA-256 of method's and sampling's code; '' in older rows")
    rule_code: Name = Field("", description="SHA-256 of the rule's code; '' in older rows")
    rule: Name = Field("", description="guidance rule; '' is CFG, the method's own, or off")
    knobs: Mapping[Name, Scalar] = Field(
        default_factory=dict, description="settings of the rule, by rule.knob"
    )
    knobs_from: KnobsFrom = Field("", description="where those come from")
    steps: Count
    nfe: Count
    nfe_weighted: Number | None = Field(
        None, description="nfe, weighted by the parameters of the network called"
    )
    seed: Count = Field(description="sampling seed")
    labels: Literal["", Labels] = Field(
        "",
        description="'balanced': sample i is of class i modulo K; 'random': drawn uniformly; "
        "'reference': the classes of the reference in turn; '' in older rows",
    )
    sampler: Solver = Field("heun", description="of methods that integrate a trajectory")
    grid: Grid = Field("edm", description="spacing of the noise levels of such methods")
    only_matched: bool = Field(
        False, description="run only because another line has the same outcome or cost as CFG there"
    )
    reference_n: Count
    seconds_per_image: Number = 0.0
    decoder_seconds_per_image: Number = Field(0.0, description="not part of the seconds above")
    cpu_share: Number | None = Field(
        None, ge=0, description="processor time over these seconds; None unless on a CPU alone"
    )
    values: tuple[Value, ...] = ()
    unmeasured: Mapping[Name, Text] = Field(
        default_factory=dict, description="why there is no value, by metric and extractor"
    )
    preview: Preview | None = Field(None, discriminator="kind")

    @property
    def under_load(self) -> bool:
        """Whether other programs used the processor too, so that the seconds are too many."""
        return self.cpu_share is not None and self.cpu_share < ALONE


R = TypeVar("R", bound=StoredRow)


def seal(row: StoredRow) -> str:
    """JSON of a row; its last key is the SHA-256 of the others."""
    text = row.model_dump_json(indent=1)
    return f'{text[:-2]},\n "content_sha256": "{digest(json.loads(text))}"\n}}\n'


def unseal(kind: type[R], path: Path, text: bytes) -> R:
    """The row in a file's text; Changed if its content differs from what was written.

    Layout and the order of keys may change. Older rows have no hash and are not checked. Raises
    ValidationError if the text is not such a row.
    """
    row = kind.model_validate_json(text)
    if row.content_sha256 == "":
        return row
    tree = json.loads(text)
    if tree.pop("content_sha256") != digest(tree):
        raise Changed(path)
    return row.model_copy(update={"content_sha256": ""})


def row_path(folder: Path, run: str, key: str) -> Path:
    """The file of a row."""
    return folder / run / f"{key[:24]}.json"


def write_row(folder: Path, row: StoredRow) -> Path:
    """Write one row atomically; returns its file."""
    return write_text(row_path(folder, row.run, row.key), seal(row))


def write_reason(folder: Path, row: StoredRow) -> None:
    """Write the row of a divergence, skip or failure.

    A skip or failure replaces only a skip or failure of another reason, and never a result.
    """
    path = row_path(folder, row.run, row.key)
    old = read_as(type(row), path) if path.exists() else None
    if (
        old is None
        or row.status == "diverged"
        or (old.status in ("skip", "failed") and old.reason != row.reason)
    ):
        write_row(folder, row)


def read_as(kind: type[R], path: Path) -> R:
    """Read one row; a damaged file is a UserError that names it."""
    parse = partial(unseal, kind, path)
    return read_json(path, parse, "a row of results", "remove it and sweep again")


def read_row(path: Path) -> Row:
    """Read the row of a cell."""
    return read_as(Row, path)


def stored_row(folder: Path, run: str, key: str) -> Row | None:
    """The stored row of a cell, or None."""
    path = row_path(folder, run, key)
    row = read_row(path) if path.exists() else None
    # The file's name has only the start of the key.
    return row if row is not None and row.key == key else None


def read_rows(cells: Path) -> list[Row]:
    """All rows of an experiment, by path."""
    return [read_row(path) for path in sorted(cells.glob("*/*.json"))]
