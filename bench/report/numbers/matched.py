"""Every line against CFG at equal outcome: which rules beat it, and which are CFG at another scale.

A rule's nominal scale says little about its strength, so lines are compared at the scale at which
CFG has the same outcome, such as precision, and at the steps of CFG that cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.report.numbers.columns import Column
from bench.report.numbers.entries import holm
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.match import (
    Curve,
    Gap,
    Level,
    Match,
    find_match,
    gap_at,
    level,
    make_curve,
)
from bench.report.numbers.pareto import borrowed
from bench.report.numbers.ranking import LEVEL

if TYPE_CHECKING:
    import pandas as pd
JUDGED = ("kid",)
"""Compared with CFG, next to the leading measures and those of variety."""
Equal = Literal["steps", "nfe", "seconds"]
SAME_COST = 0.1
"""Costs are equal if they differ by at most this share."""
OUTCOMES = ("class_accuracy", "displacement")
"""Effects of guidance, next to every measure of quality with one of variety: precision."""


@dataclass(frozen=True)
class Duel:
    """A line at one of its scales against CFG at equal outcome and equal steps or cost.

    `gaps` are the line less CFG at the scale of the match, by measure; empty unless there is one
    scale of equal outcome. `nfe` are the evaluations of the line and of CFG.
    """

    series: Series
    guidance: float
    outcome: Column
    equal: Equal
    cfg: Series
    match: Match
    gaps: Mapping[Column, Gap]
    nfe: tuple[int, int]


Kind = Literal["better", "worse", "both", "same", "idle", "none"]


@dataclass(frozen=True)
class Standing:
    """What the duels of a line by one outcome and one measure show.

    "better" and "worse": significantly so at some scale, "both": at different ones. "same": at no
    scale. "idle": nor does any scale differ from CFG's lowest. "none": no scale has an equal
    outcome. `best` is the duel in which the line does best (worst if "worse"), with its `p` for
    the number of all duels (Holm).
    """

    series: Series
    kind: Kind
    best: Duel | None
    p: float | None
    better: int
    worse: int
    of: int

    @property
    def provisional(self) -> bool:
        """Whether the standing rests on an interpolated value of CFG."""
        return self.best is not None and not self.best.match.measured


@dataclass(frozen=True)
class Matched:
    """All duels of a data set, of every outcome; `judged` are the measures compared."""

    dataset: str
    outcomes: tuple[Column, ...]
    judged: tuple[Column, ...]
    duels: tuple[Duel, ...]

    def of(self, outcome: Column, equal: Equal = "steps") -> list[Duel]:
        """The duels by one outcome."""
        return [d for d in self.duels if d.outcome == outcome and d.equal == equal]

    @cached_property
    def leading(self) -> Column:
        """The measure that the verdict is on."""
        return max(self.judged, key=lambda c: c.about.lead)

    @cached_property
    def chosen(self) -> Column:
        """The outcome that finds a scale for the most lines; the first of equals."""
        count = {o: len({d.series for d in self.of(o) if d.gaps}) for o in self.outcomes}
        return max(self.outcomes, key=lambda o: count[o])

    def standings(
        self, outcome: Column, judged: Column, equal: Equal = "steps"
    ) -> dict[Series, Standing]:
        """What every line shows by an outcome."""
        duels = self.of(outcome, equal)
        tested = [d for d in duels if judged in d.gaps and d.gaps[judged].p is not None]
        adjusted = holm([d.gaps[judged].p or 0.0 for d in tested])
        known = {id(d): p for d, p in zip(tested, adjusted, strict=True)}
        lines = dict.fromkeys(d.series for d in duels)
        return {s: _standing(s, [d for d in duels if d.series == s], known, judged) for s in lines}


def _standing(
    series: Series, duels: Sequence[Duel], known: Mapping[int, float], judged: Column
) -> Standing:
    sign = 1.0 if judged.direction == "lower" else -1.0
    tested = [d for d in duels if id(d) in known]
    if not tested:
        return Standing(series, "none", None, None, 0, 0, len(duels))

    def advantage(duel: Duel) -> float:
        gap = duel.gaps[judged]
        return sign * gap.value / gap.se if gap.se else np.inf * sign * gap.value or 0.0

    sure = [d for d in tested if known[id(d)] < LEVEL]
    better = sum(sign * d.gaps[judged].value < 0 for d in sure)
    worse = len(sure) - better
    kind: Kind = "same"
    if sure:
        kind = "both" if better and worse else "better" if better else "worse"
    elif all(d.match.low <= 1.0 for d in tested):
        kind = "idle"
    pick = max if kind == "worse" else min
    best = pick(tested, key=lambda d: (advantage(d), d.guidance))
    return Standing(series, kind, best, known[id(best)], better, worse, len(duels))


def match_lines(data: Data) -> dict[str, Matched]:
    """The duels of every data set that has a line to compare with CFG."""
    found = {}
    for dataset in data.datasets:
        own = [c for c in data.columns if c.dataset == dataset]
        outcomes = tuple(c for c in own if is_outcome(c))
        variety = {c.about.against for c in outcomes}
        judged = tuple(c for c in own if c.about.lead or c.metric in (*JUDGED, *variety))
        duels = tuple(_Duels(data, dataset, outcomes, judged).all()) if judged else ()
        if duels:
            used = tuple(o for o in outcomes if any(d.outcome == o for d in duels))
            found[dataset] = Matched(dataset, used, judged, duels)
    return found


def is_outcome(column: Column) -> bool:
    """Whether lines are compared with CFG at equal values of this measure."""
    return bool(column.about.against) or column.metric in OUTCOMES


def is_cfg(data: Data, series: Series) -> bool:
    """Whether a line is CFG at sampling: guidance costs further evaluations."""
    if series.rule:
        return False
    costs = {g: data.cost(series, g)[0] for g in {r.guidance for r in data.rows_of(series)}}
    return 1.0 in costs and any(0 < costs[1.0] < nfe for nfe in costs.values())


def _same(series: Series) -> tuple[str, str, str]:
    """What lines of CFG share that differ in steps only."""
    return series.method, series.run, series.sampling


class _Duels:
    """Makes the duels of a data set; keeps the curves of CFG."""

    def __init__(
        self, data: Data, dataset: str, outcomes: Sequence[Column], judged: Sequence[Column]
    ) -> None:
        self._data, self._outcomes, self._judged = data, outcomes, judged
        self._lines = data.series(dataset)
        cfg = (s for s in (*self._lines, *data.companions(dataset)) if is_cfg(data, s))
        self._cfg = {s: self._cost(s) for s in cfg}
        self._curves: dict[tuple[Series, Column, frozenset[int]], Curve | None] = {}

    def all(self) -> Iterator[Duel]:
        """Every line at every scale, by every outcome, at equal steps and at equal cost."""
        for series in self._lines:
            if series in self._cfg:
                continue
            reference = self._reference(series)
            if reference is None:
                continue
            for outcome in self._outcomes:
                for g in self._data.running(outcome, series):
                    if borrowed(self._data, series, g):
                        continue
                    for equal, cfg in self._opponents(series, g, reference):
                        duel = self._duel(series, g, outcome, equal, cfg)
                        if duel is not None:
                            yield duel

    def _reference(self, series: Series) -> Series | None:
        """The CFG line of a rule; for a method with guidance of its own, that of a network."""
        if series.rule:
            return series.base if series.base in self._cfg else None
        alike = [s for s in self._cfg if s.sampling == series.sampling] or list(self._cfg)
        trained = [s for s in alike if any(r.checkpoint for r in self._data.rows_of(s))]
        return max(trained or alike, key=lambda s: len(self._data.rows_of(s)), default=None)

    def _opponents(
        self, series: Series, g: float, reference: Series
    ) -> Iterator[tuple[Equal, Series]]:
        """CFG at the same steps, and at the steps of about the same evaluations or seconds."""
        yield "steps", reference
        nfe, seconds = self._data.cost(series, g)
        kinds: tuple[tuple[Equal, int, float], ...] = (("nfe", 0, nfe), ("seconds", 1, seconds))
        for equal, place, own in kinds:
            costs = {s: c[place] for s, c in self._cfg.items() if _same(s) == _same(reference)}
            near = {s: abs(cost / own - 1) for s, cost in costs.items() if own and cost}
            cfg = min(near, key=lambda s: near[s], default=None)
            if cfg is not None and near[cfg] <= SAME_COST:
                yield equal, cfg

    def _cost(self, cfg: Series) -> tuple[int, float]:
        """Evaluations and seconds of CFG at a scale at which it guides."""
        scales = {r.guidance for r in self._data.rows_of(cfg) if r.status == "ok"}
        return max(self._data.cost(cfg, g) for g in scales)

    def _curve(self, cfg: Series, column: Column, seeds: frozenset[int]) -> Curve | None:
        key = cfg, column, seeds
        if key not in self._curves:
            cells = self._data.everywhere(column, cfg)
            found = {g: one for g, cell in cells.items() if (one := level(cell, seeds))}
            self._curves[key] = make_curve(found)
        return self._curves[key]

    def _level(self, column: Column, series: Series, g: float) -> tuple[Level, frozenset[int]]:
        cell = self._data.running(column, series)[g]
        seeds = frozenset(row.seed for row, _ in cell.found)
        found = level(cell, seeds)
        assert found is not None
        return found, seeds

    def _duel(
        self, series: Series, g: float, outcome: Column, equal: Equal, cfg: Series
    ) -> Duel | None:
        reached, seeds = self._level(outcome, series, g)
        outcomes = self._curve(cfg, outcome, seeds)
        match = find_match(outcomes, reached, outcome.direction) if outcomes is not None else None
        if match is None or outcomes is None:
            return None
        gaps = {}
        for column in self._judged if match.place == "at" else ():
            curve = self._curve(cfg, column, seeds)
            if (
                curve is None
                or column.n != outcome.n
                or (outcome.extractor and column.extractor not in ("", outcome.extractor))
                or g not in self._data.running(column, series)
                or not curve.scales[0] <= match.scale <= curve.scales[-1]
            ):
                continue
            value, own = self._level(column, series, g)
            if own == seeds:
                joint = "real" not in (column.about.error_of, outcome.about.error_of)
                gaps[column] = gap_at(match, reached, outcomes, value, curve, joint)
        nfe = self._data.cost(series, g)[0], self._cost(cfg)[0]
        return Duel(series, g, outcome, equal, cfg, match, gaps, nfe)


def matched_frame(found: Mapping[str, Matched]) -> pd.DataFrame | None:
    """One line per duel and measure; None without any duel."""
    import pandas as pd

    records = [
        {
            **{"dataset": dataset, "method": d.series.method, "rule": d.series.rule},
            **{"line": d.series.label, "guidance": d.guidance, "equal": d.equal},
            **{"outcome": d.outcome.metric, "extractor": d.outcome.extractor, "n": d.outcome.n},
            **{"place": d.match.place, "cfg": d.cfg.label, "nfe": d.nfe[0], "cfg_nfe": d.nfe[1]},
            **{"cfg_guidance": d.match.scale, "low": d.match.low, "high": d.match.high},
            **{"error": "paired jackknife" if d.match.paired else "errors of the rows"},
            **{"cfg_run_there": d.match.measured, **gap},
        }
        for dataset, matched in found.items()
        for d in matched.duels
        for gap in _gaps(d)
    ]
    return pd.DataFrame.from_records(records) if records else None


def _gaps(duel: Duel) -> list[dict[str, object]]:
    """The differences of a duel, or one line without any."""
    return [
        {"metric": column.metric, "difference": gap.value, "se": gap.se, "p": gap.p}
        for column, gap in duel.gaps.items()
    ] or [{"metric": None, "difference": None, "se": None, "p": None}]
