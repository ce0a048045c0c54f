"""Which rows count: those of the newest weights and code, one per cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.numbers.names import FLOOR, method_order


def place(row: Row) -> tuple[object, ...]:
    """Sort key of rows by content, so that nothing depends on the order of files."""
    line = (row.dataset, method_order(row.method), row.steps, row.guidance)
    return (*line, row.train_seed, row.seed, row.run, row.experiment, row.key)


def age(row: Row | InversionRow) -> tuple[datetime, str]:
    """Sort key, the newest row last; keys decide between rows of the same moment."""
    created = datetime.fromisoformat(row.created)
    return (created if created.tzinfo else created.replace(tzinfo=UTC), row.key)


def identity(row: Row) -> tuple[str, str, str]:
    """What tells a row from all others: two runs or experiments may share weights and cells."""
    return row.experiment, row.run, row.key


def of_newest_weights(rows: Sequence[Row]) -> list[Row]:
    """The rows without those of older weights of the same run name."""
    latest: dict[tuple[str, str], str] = {}
    for row in sorted(rows, key=age):
        if row.checkpoint:
            latest[row.experiment, row.run] = row.checkpoint
    # A cell that was skipped before training has no checkpoint, and is not stale.
    return [r for r in rows if r.checkpoint in ("", latest.get((r.experiment, r.run), ""))]


def of_newest_code(rows: Sequence[Row]) -> list[Row]:
    """The rows of each run, and of each of its rules, with the code of the newest one.

    A curve must not mix the results of two programs. Old rows that do not state their code are kept
    while there are no others.
    """
    latest: dict[tuple[str, ...], str] = {}
    for row in sorted(rows, key=age):
        run = (row.experiment, row.run)
        latest[run] = row.code or latest.get(run, "")
        latest[*run, row.rule] = row.rule_code or latest.get((*run, row.rule), "")
    return [
        r
        for r in rows
        if r.code == latest[r.experiment, r.run]
        and r.rule_code == latest[r.experiment, r.run, r.rule]
    ]


def variant(row: Row) -> str:
    """The settings of a row's rule: '' for its defaults, 'tuned', or the settings of the suite.

    Runs are tuned one by one, so tuned settings differ among the runs of a line.
    """
    if row.knobs_from in ("", "default", "tuned"):
        return "tuned" if row.knobs_from == "tuned" else ""
    return ", ".join(f"{knob.partition('.')[2]}={value}" for knob, value in row.knobs.items())


def sampling(row: Row) -> tuple[str, ...]:
    """Labels, sampler and grid of a row where they are not the usual ones, such as "sde"."""
    if row.method == FLOOR:
        return ()
    parts = {
        row.sampler: row.sampler != "heun",
        f"{row.grid} grid": row.grid != "edm",
        f"{row.labels} labels": row.labels not in ("", "balanced"),
    }
    return tuple(part for part, unusual in parts.items() if unusual)


def shared_sampling(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """By data set, the unusual settings that all its generated samples share."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        own = found.setdefault(row.dataset, [])
        own += [sampling(row)] if row.method != FLOOR else []
    return {
        dataset: tuple(p for p in own[0] if all(p in other for other in own)) if own else ()
        for dataset, own in found.items()
    }


def newest(rows: Sequence[Row]) -> list[Row]:
    """The newest row of every cell: a cell that was run twice is not a second seed.

    Any other row comes before a failed one, and a row with an extra network before one without.
    """
    best: dict[tuple[object, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (r.status != "failed", _has_extra_network(r), *age(r))):
        line = (row.experiment, row.dataset, row.method, row.run)
        how = (*line, row.rule, variant(row), sampling(row))
        best[*how, row.guidance, row.steps, row.seed, row.n] = row
    kept = {identity(row) for row in best.values()}
    return [row for row in rows if identity(row) in kept]


def _has_extra_network(row: Row) -> bool:
    return bool(row.null_checkpoint or row.weak_checkpoint)
