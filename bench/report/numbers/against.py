"""Differences between two experiments: cell by cell, paired where they share sampling seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from bench.report.numbers.columns import Column, differing_fact
from bench.report.numbers.entries import Contrast, Entry, contrast, first, holm
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.pareto import borrowed
from bench.report.numbers.ranking import LEVEL
from metrics.base import Estimate


@dataclass(frozen=True)
class Change:
    """A cell of both experiments; `less` is this one less the other, None without any error.

    `p` is adjusted for all cells of the measure (Holm).
    """

    series: Series
    guidance: float
    here: Estimate
    there: Estimate
    less: Contrast | None
    p: float | None

    @property
    def value(self) -> float:
        """One experiment less the other, over all their seeds or those that both have."""
        return self.here.value - self.there.value if self.less is None else self.less.value

    @property
    def is_significant(self) -> bool:
        """Whether the experiments differ significantly at 5%."""
        return self.p is not None and self.p < LEVEL

    @property
    def is_same(self) -> bool:
        """Whether both have the same value bit for bit."""
        return self.here.value == self.there.value


@dataclass(frozen=True)
class Against:
    """What two experiments have in common: changes by measure, or why a measure is skipped."""

    changes: Mapping[Column, tuple[Change, ...]]
    skipped: Mapping[Column, str]


def compare_experiments(ours: Data, theirs: Data) -> Against:
    """All cells that both have, for measures that are comparable."""
    others = {column.key: column for column in theirs.columns}
    changes: dict[Column, tuple[Change, ...]] = {}
    skipped: dict[Column, str] = {}
    for column in ours.columns:
        if column.key not in others:
            continue
        pairs = list(_entries(ours, theirs, column, others[column.key]))
        if not pairs:
            continue
        (_, one, other), *_ = pairs
        _, why = differing_fact(one.sides[0][0].found[0], other.sides[0][0].found[0])
        if why:
            skipped[column] = why
            continue
        found = [contrast(one, other) for _, one, other in pairs]
        adjusted = iter(holm([c.p for c in found if c is not None]))
        changes[column] = tuple(
            Change(a.series, g, a.estimate, b.estimate, c, None if c is None else next(adjusted))
            for (g, a, b), c in zip(pairs, found, strict=True)
        )
    return Against(changes, skipped)


def _entries(
    ours: Data, theirs: Data, column: Column, other: Column
) -> Iterator[tuple[float, Entry, Entry]]:
    """The guidance scale and both cells, for all cells that both have."""
    for series in ours.series(column.dataset):
        here, there = ours.running(column, series), theirs.running(other, series)
        for g in here:
            if g in there and not borrowed(ours, series, g):
                yield (
                    g,
                    Entry(series, ((here[g],),), first),
                    Entry(series, ((there[g],),), first),
                )


def against_frame(found: Against) -> pd.DataFrame:
    """One line per cell that both experiments have."""
    return pd.DataFrame.from_records(
        [
            {
                **{"dataset": c.dataset, "metric": c.metric, "extractor": c.extractor, "n": c.n},
                **{"method": change.series.method, "rule": change.series.rule},
                **{"line": change.series.label, "guidance": change.guidance},
                **{"value": change.here.value, "other": change.there.value},
                **{"difference": change.value, "se": change.less.se if change.less else None},
                **{"p_holm": change.p, "paired": change.less.paired if change.less else None},
            }
            for c, changes in found.changes.items()
            for change in changes
        ]
    )
