"""Which rows count: those of the newest weights and code, one for every cell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.rows import Row
from bench.report.numbers.names import method_order


def place(row: Row) -> tuple[object, ...]:
    """Order the rows by what they are, so that nothing depends on the order they come in."""
    line = (row.dataset, method_order(row.method), row.steps, row.guidance)
    return (*line, row.train_seed, row.seed, row.run, row.experiment, row.key)


def age(row: Row | InversionRow) -> tuple[datetime, str]:
    """Sort key, the newest row last; the key decides between rows of one moment."""
    created = datetime.fromisoformat(row.created)
    return (created if created.tzinfo else created.replace(tzinfo=UTC), row.key)


def of_newest_weights(rows: Sequence[Row]) -> list[Row]:
    """Without the rows of weights that were trained again since under the same run name."""
    latest: dict[tuple[str, str], str] = {}
    for row in sorted(rows, key=age):
        if row.checkpoint:
            latest[row.experiment, row.run] = row.checkpoint
    # A cell skipped before there were weights has no checkpoint and is not a stale one.
    return [r for r in rows if r.checkpoint in ("", latest.get((r.experiment, r.run), ""))]


def of_newest_code(rows: Sequence[Row]) -> list[Row]:
    """Without the rows of a run, or of a rule with it, whose code is not that of the newest row.

    One curve of two programs is a number of neither. Rows from before rows told their code stay
    while there are no others.
    """
    latest: dict[tuple[str, ...], str] = {}
    for row in sorted(rows, key=age):
        latest[row.experiment, row.run] = row.code or latest.get((row.experiment, row.run), "")
        of_rule = (row.experiment, row.run, row.rule)
        latest[of_rule] = row.rule_code or latest.get(of_rule, "")
    return [
        row
        for row in rows
        if row.code == latest[row.experiment, row.run]
        and row.rule_code == latest[row.experiment, row.run, row.rule]
    ]


def variant(row: Row) -> str:
    """Which settings a rule had: '' for its defaults, 'tuned', or those that somebody chose.

    Runs are tuned one by one, so that tuned settings differ among the runs of one line.
    """
    if row.knobs_from in ("", "default", "tuned"):
        return "tuned" if row.knobs_from == "tuned" else ""
    return ", ".join(f"{knob.partition('.')[2]}={value}" for knob, value in row.knobs.items())


def newest(rows: Sequence[Row]) -> list[Row]:
    """One row a cell, the newest: a cell done twice is not a second seed. A failure gives way.

    So does a cell without a further network to the same one with it.
    """
    best: dict[tuple[object, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (r.status != "failed", _has_extra_network(r), *age(r))):
        line = (row.experiment, row.dataset, row.method, row.run)
        best[*line, row.rule, variant(row), row.guidance, row.steps, row.seed, row.n] = row
    keys = {(row.run, row.key) for row in best.values()}
    return [row for row in rows if (row.run, row.key) in keys]


def _has_extra_network(row: Row) -> bool:
    return bool(row.null_checkpoint or row.weak_checkpoint)
