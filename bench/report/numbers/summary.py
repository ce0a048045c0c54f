"""The rows as one long table, and their provenance as another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from bench.experiment.rows import Row
from bench.report.numbers.columns import measured

SUMMARY = (
    *("row", "experiment", "dataset", "method", "rule", "knobs_from", "run", "train_seed"),
    *(
        "guidance",
        "steps",
        "nfe",
        "nfe_weighted",
        "seed",
        "labels",
        "sampler",
        "grid",
        "seconds_per_image",
    ),
    *("metric", "label"),
    *("direction", "extractor", "n", "reference", "reference_n", "value", "se", "se_method"),
    *("low", "high", "status", "reason"),
)
PROVENANCE = (
    *("row", "key", "created", "checkpoint", "null_checkpoint", "weak_checkpoint", "knobs"),
    *("data_hash", "reference_hash", "extractor_hashes"),
)


def summary(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per value; one line with status and reason for a row without values.

    `row` is the number of the row, the same as in `provenance`.
    """
    records: list[dict[str, object]] = []
    for i, row in enumerate(rows):
        base = row.model_dump(exclude={"values", "preview", "provenance", "knobs"}) | {"row": i}
        records += [
            base
            | value.model_dump(exclude={"version", "replicates"})
            | dict(zip(("low", "high"), value.interval or (None, None), strict=True))
            for value in measured(row)
        ] or [base]
    return pd.DataFrame.from_records(records).reindex(columns=list(SUMMARY))


def provenance(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per row: hashes, knobs, and facts of software and machine."""
    records: list[dict[str, object]] = []
    for i, row in enumerate(rows):
        base = row.model_dump(include=set(PROVENANCE) - {"knobs"}) | {"row": i}
        hashes = {v.extractor: v.extractor_hash for v in measured(row) if v.extractor_hash}
        base |= {"extractor_hashes": _pairs(hashes), "knobs": _pairs(row.knobs)}
        records.append(base | {f"provenance_{k}": v for k, v in row.provenance.items()})
    facts = sorted({name for record in records for name in record} - set(PROVENANCE))
    return pd.DataFrame.from_records(records).reindex(columns=[*PROVENANCE, *facts])


def _pairs(found: Mapping[str, object]) -> str:
    return "; ".join(f"{name} = {value}" for name, value in sorted(found.items()))
