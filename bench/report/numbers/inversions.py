"""Rows of inversions: which count, and which may share a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.numbers.counting import age
from bench.report.numbers.names import method_order
from bench.system.errors import UserError


@dataclass(frozen=True)
class Inversions:
    """The rows that count, in the order of tables; `left_out` counts older ones."""

    rows: tuple[InversionRow, ...]
    left_out: int

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, sorted."""
        return tuple(sorted({row.dataset for row in self.rows}))

    def label(self, row: InversionRow) -> str:
        """The name of a row's run in tables: its method, and the run if there are several."""
        runs = {
            (r.experiment, r.run)
            for r in self.rows
            if (r.dataset, r.method) == (row.dataset, row.method)
        }
        several = len({r.experiment for r in self.rows}) > 1
        name = f"{row.experiment}/{row.run}" if several else row.run
        return f"{row.method} [{name}]" if len(runs) > 1 else row.method

    def runs(self, dataset: str) -> dict[str, list[InversionRow]]:
        """Rows of a data set by the label of their run, guidance ascending."""
        found: dict[str, list[InversionRow]] = {}
        for row in self.rows:
            if row.dataset == dataset:
                found.setdefault(self.label(row), []).append(row)
        return found


def prepare_inversions(rows: Sequence[InversionRow], cells: Sequence[Row] = ()) -> Inversions:
    """Keep the newest row of each run and scale, of the run's newest weights.

    `cells` are the other rows of the experiment, which may be of newer weights. Raises `UserError`
    if rows of one data set have different images, judges or batches.
    """
    newest: dict[tuple[str, str], tuple[datetime, str]] = {}
    every: list[InversionRow | Row] = [*rows, *cells]
    for row in every:
        place = (row.experiment, row.run)
        if row.checkpoint:
            newest[place] = max(newest.get(place, (age(row)[0], "")), (age(row)[0], row.checkpoint))
    best: dict[tuple[object, ...], InversionRow] = {}
    for one in sorted(rows, key=lambda r: (r.status != "failed", *age(r))):
        checkpoint = newest.get((one.experiment, one.run), (None, ""))[1]
        if one.checkpoint in ("", checkpoint):
            best[one.experiment, one.dataset, one.run, one.guidance] = one
    found = sorted(
        best.values(),
        key=lambda r: (r.dataset, method_order(r.method), r.run, r.experiment, r.guidance),
    )
    _check(found)
    return Inversions(tuple(found), len({row.key for row in rows}) - len(found))


def _check(rows: Sequence[InversionRow]) -> None:
    first: dict[str, InversionRow] = {}
    for row in rows:
        if row.status != "ok":
            continue
        other = first.setdefault(row.dataset, row)
        here, there = _facts(row), _facts(other)
        for name in here:
            if here[name] != there[name]:
                raise UserError(
                    f"These inversions cannot share a table of {row.dataset}: {name} is "
                    f"{there[name]!r} for run {other.run} and {here[name]!r} for run {row.run} "
                    f"(g = {row.guidance:g}); report them separately or measure them in the "
                    "same way."
                )


def _facts(row: InversionRow) -> dict[str, object]:
    return {
        "number of images": row.n,
        "data hash": row.data_hash,
        "hash of the images": row.reference_hash,
        "judge": row.judge,
        "judge hash": row.judge_hash,
        "images a batch": row.authors_batch,
    }


_BASE = (
    *("experiment", "dataset", "method", "run", "train_seed", "guidance", "n", "status", "reason"),
    *("inversion_nfe", "reconstruction_nfe", "edit_nfe", "inversion_seconds", "edit_seconds"),
)
_LAST = ("authors_batch", "judge", "judge_hash", "reference", "reference_hash")


def inversion_summary(data: Inversions) -> pd.DataFrame:
    """One line per row: costs, every score with its standard error, edits, latents, hashes."""
    records: list[dict[str, object]] = []
    for row in data.rows:
        record: dict[str, object] = {name: getattr(row, name) for name in _BASE}
        for score in row.scores:
            record[score.name] = score.value
            if score.se is not None:
                record[f"{score.name}_se"] = score.se
        record["exact"] = row.exact if row.status == "ok" else None
        for name, share in (("edits", row.edits), ("real", row.real)):
            if share is not None:
                values = {"right": share.right, "n": share.n, "low": share.low, "high": share.high}
                record |= {f"{name}_{k}": v for k, v in values.items()}
        if row.latents is not None:
            record |= {f"latent_{k}": v for k, v in row.latents.model_dump().items()}
        record |= {name: getattr(row, name) for name in _LAST}
        records.append(record | {"checkpoint": row.checkpoint, "key": row.key})
    return pd.DataFrame.from_records(records)


def edit_summary(data: Inversions) -> pd.DataFrame:
    """One line per row and pair of classes."""
    names = ["experiment", "dataset", "method", "run", "guidance"]
    records = [
        {**{n: getattr(row, n) for n in names}, **pair.model_dump()}
        for row in data.rows
        for pair in row.pairs
    ]
    return pd.DataFrame.from_records(records, columns=[*names, "source", "target", "n", "right"])
