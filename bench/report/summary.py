"""The rows as one long table."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.report.frame import measured
from bench.store import Row

SUMMARY = (
    *("experiment", "dataset", "method", "run", "train_seed", "guidance", "steps", "nfe", "seed"),
    *("seconds_per_image", "metric", "label", "direction", "extractor", "extractor_hash", "n"),
    *("reference", "reference_hash", "reference_n", "value", "status", "reason", "checkpoint"),
    *("key", "created"),
)


def summary(rows: Iterable[Row]) -> pd.DataFrame:
    """One line a value; one line with its status and reason for a row without values."""
    records: list[dict[str, object]] = []
    for row in rows:
        base = row.model_dump(exclude={"values", "preview", "provenance", "data_hash"})
        values = measured(row)
        records += [base | value.model_dump(exclude={"version"}) for value in values] or [base]
    return pd.DataFrame.from_records(records).reindex(columns=list(SUMMARY))
