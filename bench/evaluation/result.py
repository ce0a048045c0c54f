"""The result of an evaluation as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from rich.table import Column, Table

from bench.experiment.formatting import decimals, with_error
from bench.experiment.rows import Frozen
from bench.system.errors import UserError
from bench.system.files import write_text
from metrics.base import ARROWS, Estimate

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".json", ".csv")


class MeasuredValue(Frozen):
    """One value of one metric, with everything that it depends on."""

    metric: str
    title: str
    version: int
    direction: Literal["lower", "higher", "none"]
    value: float
    se: float | None
    se_method: str
    low: float | None
    high: float | None
    protocol: str
    extractor: str = Field(description="'' if the metric uses none")
    extractor_hash: str
    n: int
    n_real: int | None = Field(description="None if a statistics file does not state it")
    k: int | None = None
    ties: Literal["", "<=", "<"] = Field("", description="whether an edge belongs to its ball")
    samples: str
    samples_hash: str
    reference: str
    reference_hash: str
    replicates: tuple[float, ...] = ()


class NotMeasured(Frozen):
    """A requested metric that could not be computed."""

    metric: str
    extractor: str
    reason: str
    failed: bool = Field(False, description="an error of the metric, not of the request")

    @property
    def key(self) -> str:
        """As `Measurement.key`."""
        return f"{self.metric} {self.extractor}".strip()


class Report(Frozen):
    """Everything that one evaluation found."""

    rows: tuple[MeasuredValue, ...]
    not_measured: tuple[NotMeasured, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    created: str
    provenance: Mapping[str, str]

    @property
    def frame(self) -> pd.DataFrame:
        """The values as a table with one line each, with the columns of `bench evaluate --out`."""
        import pandas as pd

        columns = [name for name in MeasuredValue.model_fields if name != "replicates"]
        return pd.DataFrame([row.model_dump() for row in self.rows], columns=columns)

    def _repr_html_(self) -> str:
        """The values in a notebook."""
        columns = ["title", "value", "se", "low", "high", "n", "n_real"]
        return str(self.frame[columns].to_html(index=False))


def check_out(path: Path) -> None:
    """UserError for a path that `write_report` cannot write."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out is a .json or .csv file, got {path}.", code=2)
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name a file.", code=2)


def write_report(path: Path, report: Report) -> None:
    """Write JSON with everything or CSV with the rows, depending on the suffix; atomically."""
    if path.suffix.lower() == ".json":
        write_text(path, report.model_dump_json(indent=1) + "\n")
        return
    names = [name for name in MeasuredValue.model_fields if name != "replicates"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in report.rows)
    write_text(path, text.getvalue())


def table(report: Report) -> Table:
    """The rows for a terminal."""
    found = Table("metric", Column("value ± se", no_wrap=True), "n real", "k, ties")
    for row in report.rows:
        found.add_row(
            f"{row.title} {ARROWS[row.direction]}".rstrip(),
            shown(Estimate(row.value, row.se, row.se_method, row.low, row.high)),
            "?" if row.n_real is None else f"{row.n_real:,}",
            "" if row.k is None else f"{row.k}, {row.ties}",
        )
    return found


def shown(found: Estimate) -> str:
    """A value with its error, formatted as in the tables of reports."""
    return " ".join(with_error(found, decimals([found.value]))).rstrip()
