"""Lines in order of a number, and which of them can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report.numbers.entries import Contrast, Entry, contrast, holm
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.operating import Operating, best_point, common_range, range_mean

LEVEL = 0.05


@dataclass(frozen=True)
class Place:
    """A line in a ranking; `against` and `p` (by Holm) are its difference from the leader.

    `group` counts from 1: lines of one group cannot be told from the best of it. 0 is a line whose
    difference has no error.
    """

    entry: Entry
    rank: int
    group: int
    against: Contrast | None = None
    p: float | None = None

    @property
    def series(self) -> Series:
        """The line."""
        return self.entry.series

    @property
    def is_behind(self) -> bool:
        """Whether it is significantly behind the leader."""
        return self.p is not None and self.p < LEVEL


def rank(entries: Sequence[Entry], direction: str) -> tuple[Place, ...]:
    """Places of lines, the best first; every line is compared with the leader.

    Groups: the leader and all that cannot be told from it are the first; the best of the rest
    heads the next, compared with those left in the same way.
    """
    sign = 1.0 if direction == "lower" else -1.0
    ordered = sorted(entries, key=lambda e: sign * e.estimate.value)
    groups: dict[Series, int] = {}
    leading: Mapping[Series, tuple[Contrast, float]] = {}
    rest, group = list(ordered), 0
    while rest:
        group += 1
        head = rest[0]
        found = _against(head, rest[1:])
        leading = found if group == 1 else leading
        groups[head.series] = group
        known = {e.series for e in rest[1:] if e.series in found}
        for series in known:
            if found[series][1] >= LEVEL:
                groups[series] = group
        if group == 1:
            for entry in rest[1:]:
                if entry.series not in known:
                    groups[entry.series] = 0
        rest = [e for e in rest if e.series not in groups]
    places = []
    for i, entry in enumerate(ordered):
        against, p = leading.get(entry.series, (None, None))
        places.append(Place(entry, i + 1, groups[entry.series], against, p))
    return tuple(places)


def _against(head: Entry, others: Sequence[Entry]) -> dict[Series, tuple[Contrast, float]]:
    """Differences from `head` where they have an error, with adjusted p.

    Which line is the best is chosen by the same values, so that its differences are the largest of
    all pairs of lines: p is adjusted for the number of those.
    """
    found = {e.series: contrast(e, head) for e in others}
    known = {series: c for series, c in found.items() if c is not None}
    pairs = len(known) * (len(known) + 1) // 2
    adjusted = holm([c.p for c in known.values()], of=pairs)
    return {s: (c, p) for (s, c), p in zip(known.items(), adjusted, strict=True)}


@dataclass(frozen=True)
class Ranking:
    """The lines of one measure by their best operating point and by their mean over `scales`."""

    column: Column
    points: Mapping[Series, Operating]
    best: tuple[Place, ...]
    mean: tuple[Place, ...]
    scales: tuple[float, ...]

    @property
    def is_paired(self) -> bool:
        """Whether all differences are of the same noise."""
        known = [p.against for p in (*self.best, *self.mean) if p.against is not None]
        return all(c.paired for c in known)


def make_ranking(data: Data, column: Column) -> Ranking | None:
    """The ranking of a measure; None without a direction or a second line."""
    lines = data.series(column.dataset)
    points = {s: p for s in lines if (p := best_point(data, column, s)) is not None}
    if len(points) < 2:
        return None
    scales = common_range(data, column)
    means = [e for s in lines if (e := range_mean(data, column, s, scales)) is not None]
    return Ranking(
        column=column,
        points=points,
        best=rank([p.entry for p in points.values()], column.direction),
        mean=rank(means, column.direction) if len(means) > 1 else (),
        scales=scales,
    )
