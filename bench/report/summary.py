"""The rows as one long table."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.report.frame import measured
from bench.store import Row, Value

SUMMARY = (
    *("experiment", "dataset", "method", "run", "train_seed", "guidance", "steps", "nfe", "seed"),
    *("seconds_per_image", "metric", "label", "direction", "extractor", "extractor_hash", "n"),
    *("reference", "reference_hash", "reference_n", "value", "se", "se_method", "low", "high"),
    *("status", "reason", "checkpoint", "key", "created"),
)


def summary(rows: Iterable[Row]) -> pd.DataFrame:
    """One line a value; one line with its status and reason for a row without values."""
    records: list[dict[str, object]] = []
    for row in rows:
        base = row.model_dump(exclude={"values", "preview", "provenance", "data_hash"})
        records += [base | _record(value) for value in measured(row)] or [base]
    return pd.DataFrame.from_records(records).reindex(columns=list(SUMMARY))


def _record(value: Value) -> dict[str, object]:
    low, high = value.interval or (None, None)
    return value.model_dump(exclude={"version", "replicates"}) | {"low": low, "high": high}
