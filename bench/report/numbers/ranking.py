"""Lines in order of a number, and which of them differ significantly from the leader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report.numbers.cells import restricted
from bench.report.numbers.columns import Column
from bench.report.numbers.entries import Contrast, Entry, average, contrast, first, holm
from bench.report.numbers.frame import Data, Series

LEVEL = 0.05


@dataclass(frozen=True)
class Operating:
    """A line at its best guidance scale; `scales` is how many scales it was chosen from.

    If `held_out`, the first half of the sampling seeds chose the scale and `entry` is the value of
    the other half. Otherwise `entry` is the best of `scales` values, hence optimistic.
    """

    entry: Entry
    guidance: float
    scales: int
    held_out: bool
    nfe: int
    seconds: float
    """Per image, 0.0 if nothing was timed."""

    @property
    def is_optimistic(self) -> bool:
        """Whether the same values chose the scale and are reported."""
        return self.scales > 1 and not self.held_out


def best_point(data: Data, column: Column, series: Series) -> Operating | None:
    """The best scale of a line, the lowest of equals; None without values or a direction."""
    cells = data.running(column, series)
    if not cells or column.direction == "none":
        return None
    seeds = sorted(Entry(series, (tuple(cells.values()),), average).seeds)
    chosen, reported = cells, cells
    split = len(seeds) > 1 and len(cells) > 1
    if split:
        half = len(seeds) // 2
        chosen = {g: restricted(c, frozenset(seeds[:half])) for g, c in cells.items()}
        reported = {g: restricted(c, frozenset(seeds[half:])) for g, c in cells.items()}
    sign = 1.0 if column.direction == "lower" else -1.0
    g = min(chosen, key=lambda g: (sign * chosen[g].mean, g))
    entry = Entry(series, ((reported[g],),), first)
    return Operating(entry, g, len(cells), split, *data.cost(series, g))


def common_range(data: Data, column: Column) -> tuple[float, ...]:
    """The scales over which lines are averaged: those that most guided lines have.

    Lines with a value at a single scale, such as methods without guidance, do not count.
    """
    running = [set(data.running(column, series)) for series in data.series(column.dataset)]
    guided = [found for found in running if len(found) > 1]
    scales = data.guidances(column.dataset)
    return tuple(g for g in scales if 2 * sum(g in found for found in guided) > len(guided))


@dataclass(frozen=True)
class Place:
    """A line in a ranking; `against` and `p` (by Holm) are its difference from the leader.

    `group` counts from 1: the lines of a group do not differ significantly from its best one. It is
    0 for a line whose difference has no error.
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
    def is_worse(self) -> bool:
        """Whether it is significantly worse than the leader."""
        return self.p is not None and self.p < LEVEL


def rank(entries: Sequence[Entry], direction: str) -> tuple[Place, ...]:
    """Places of lines, the best first; every line is compared with the leader.

    The first group has the leader and all lines that do not differ significantly from it. The best
    of the others is the head of the next group, which is made in the same way, and so on.
    """
    sign = 1.0 if direction == "lower" else -1.0
    ordered = sorted(entries, key=lambda e: sign * e.estimate.value)
    groups: dict[Series, int] = {}
    leading: Mapping[Series, tuple[Contrast, float]] = {}
    rest, group = ordered, 0
    while rest:
        group += 1
        head, *others = rest
        found = _against(head, others)
        if group == 1:
            leading = found
            groups |= {e.series: 0 for e in others if e.series not in found}
        groups[head.series] = group
        groups |= {series: group for series, (_, p) in found.items() if p >= LEVEL}
        rest = [e for e in rest if e.series not in groups]
    return tuple(
        Place(entry, i, groups[entry.series], *leading.get(entry.series, (None, None)))
        for i, entry in enumerate(ordered, start=1)
    )


def _against(head: Entry, others: Sequence[Entry]) -> dict[Series, tuple[Contrast, float]]:
    """Differences from `head` that have an error, with adjusted p.

    The same values choose the best line, so its differences are the largest of all pairs of lines:
    p is adjusted for the number of pairs.
    """
    found = {e.series: contrast(e, head) for e in others}
    known = {series: c for series, c in found.items() if c is not None}
    pairs = len(known) * (len(known) + 1) // 2
    adjusted = holm([c.p for c in known.values()], of=pairs)
    return {s: (c, p) for (s, c), p in zip(known.items(), adjusted, strict=True)}


@dataclass(frozen=True)
class Ranking:
    """The lines of a measure by their best operating point, and by their mean over `scales`."""

    column: Column
    points: Mapping[Series, Operating]
    best: tuple[Place, ...]
    mean: tuple[Place, ...]
    scales: tuple[float, ...]

    @property
    def is_paired(self) -> bool:
        """Whether all differences are between samples from the same noise."""
        known = [p.against for p in (*self.best, *self.mean) if p.against is not None]
        return all(c.paired for c in known)


def make_ranking(data: Data, column: Column) -> Ranking | None:
    """The ranking of a measure; None without a direction or a second line."""
    lines = data.series(column.dataset)
    points = {s: p for s in lines if (p := best_point(data, column, s)) is not None}
    if len(points) < 2:
        return None
    scales = common_range(data, column)
    running = {s: data.running(column, s) for s in lines} if len(scales) > 1 else {}
    means = [
        Entry(s, (tuple(cells[g] for g in scales),), average)
        for s, cells in running.items()
        if all(g in cells for g in scales)
    ]
    return Ranking(
        column=column,
        points=points,
        best=rank([p.entry for p in points.values()], column.direction),
        mean=rank(means, column.direction) if len(means) > 1 else (),
        scales=scales,
    )
