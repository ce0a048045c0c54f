"""The rows that count, grouped into lines and cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from bench.experiment.rows import Row, Value
from bench.report.numbers.cells import Cell
from bench.report.numbers.columns import Column, Key, key_of, make_columns, values
from bench.report.numbers.counting import (
    age,
    identity,
    newest,
    of_newest_code,
    of_newest_weights,
    place,
    sampling,
    shared_sampling,
    variant,
)
from bench.report.numbers.names import FLOOR, FLOOR_LABEL, method_order
from bench.system.errors import UserError, counted


@dataclass(frozen=True)
class Series:
    """One line of a table or figure: a method at a number of steps.

    `run` is '' unless one training seed of the method has several runs. Those differ by more than
    chance, so they are not averaged: `run` is the preset in their names, '' for the data set's own,
    or the whole name. `rule` is the rule of guidance at sampling, '' for CFG or for a method with
    guidance of its own.
    """

    dataset: str
    method: str
    steps: int
    run: str = ""
    rule: str = ""
    sampling: str = ""
    """Labels, sampler and grid that are not the usual ones, unless all lines share them."""

    @property
    def base(self) -> Series:
        """The line of the same method, run and steps under CFG."""
        return replace(self, rule="")

    @property
    def label(self) -> str:
        """The name in tables and legends."""
        if self.method == FLOOR:
            return FLOOR_LABEL
        name = f"{self.method} [{self.run}]" if self.run else self.method
        name += f" + {self.rule}" if self.rule else ""
        if self.steps > 0:
            name += f", {counted(self.steps, 'step')}"
        return f"{name}, {self.sampling}" if self.sampling else name


@dataclass(frozen=True)
class Data:
    """The rows of a report that count, and how they are grouped."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: Mapping[Column, str]
    """Why the floor of a column is left out."""
    stale: int
    outdated: int
    superseded: int

    @cached_property
    def _names(self) -> dict[tuple[str, str, str], str]:
        """The `run` of each row's series, by the row's identity."""
        several = len({row.experiment for row in self.rows}) > 1
        names = {
            identity(r): f"{r.experiment}/{r.run}" if several else _short_name(r) for r in self.rows
        }
        owners: dict[tuple[str, str, int], set[str]] = {}
        for row in self.rows:
            owners.setdefault((row.dataset, row.method, row.train_seed), set()).add(
                names[identity(row)]
            )
        split = {(d, m) for (d, m, _), runs in owners.items() if len(runs) > 1 and m != FLOOR}
        return {
            identity(r): names[identity(r)] if (r.dataset, r.method) in split else ""
            for r in self.rows
        }

    def series_of(self, row: Row) -> Series:
        """The line that a row belongs to."""
        steps = 0 if row.method == FLOOR else row.steps
        rule = self._variants.get((row.dataset, row.method, row.rule, variant(row)), row.rule)
        run = self._names[identity(row)]
        shared = self._shared.get(row.dataset, ())
        own = [part for part in sampling(row) if part not in shared]
        return Series(row.dataset, row.method, steps, run, rule, ", ".join(own))

    @cached_property
    def _shared(self) -> Mapping[str, tuple[str, ...]]:
        return shared_sampling(self.rows)

    def shared(self, dataset: str) -> str:
        """The unusual sampling that all lines of a data set share, such as "sde"; '' for none."""
        return ", ".join(self._shared.get(dataset, ()))

    @cached_property
    def _variants(self) -> dict[tuple[str, str, str, str], str]:
        """Names of the rules that were run with several settings, by those."""
        found = {(r.dataset, r.method, r.rule, variant(r)) for r in self.rows if r.rule}
        count = Counter(known[:3] for known in found)
        return {
            known: f"{known[2]} ({known[3]})" if known[3] else known[2]
            for known in found
            if count[known[:3]] > 1
        }

    @cached_property
    def _cells(self) -> dict[Series, dict[float, list[Row]]]:
        cells: dict[Series, dict[float, list[Row]]] = {}
        for row in self.rows:
            cells.setdefault(self.series_of(row), {}).setdefault(row.guidance, []).append(row)
        for series in [s for s in cells if s.rule]:
            # Without guidance no rule acts: the rows at g = 1 belong to the lines of all rules,
            # except for rules that cannot be used here.
            off = cells.get(series.base, {}).get(1.0, [])
            if off and any(r.status != "skip" for rows in cells[series].values() for r in rows):
                cells[series].setdefault(1.0, list(off))
        return cells

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, sorted."""
        return tuple(sorted({row.dataset for row in self.rows}))

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods in their order."""
        return tuple(sorted({row.method for row in self.rows}, key=method_order))

    def series(self, dataset: str) -> tuple[Series, ...]:
        """The lines of a data set, without the floor: methods first, then their rules."""
        return self._lines.get((dataset, True), ())

    def companions(self, dataset: str) -> tuple[Series, ...]:
        """The lines that were run only to be compared with others at equal cost."""
        return self._lines.get((dataset, False), ())

    @cached_property
    def _lines(self) -> dict[tuple[str, bool], tuple[Series, ...]]:
        """All lines by data set, and whether they were swept for themselves."""
        ordered = sorted(
            (s for s in self._cells if s.method != FLOOR),
            key=lambda s: (
                *(s.rule != "", method_order(s.method), s.run, s.steps, s.sampling, s.rule),
            ),
        )
        found: dict[tuple[str, bool], tuple[Series, ...]] = {}
        for series in ordered:
            key = series.dataset, _swept(self.rows_of(series))
            found[key] = (*found.get(key, ()), series)
        return found

    def plain(self, dataset: str) -> tuple[Series, ...]:
        """The lines in the figures of methods: those under CFG or with guidance of their own.

        A method that was swept only under other rules has its lines under those.
        """
        lines = self.series(dataset)
        guided = {s for s in lines if not s.rule and any(r.guidance != 1 for r in self.rows_of(s))}
        ruled_only = {s.base for s in lines if s.rule} - guided
        return tuple(s for s in lines if (s.base in ruled_only) == bool(s.rule))

    def ruled(self, dataset: str) -> dict[Series, tuple[Series, ...]]:
        """The lines of rules, by their line under CFG, which may have no rows."""
        found: dict[Series, tuple[Series, ...]] = {}
        for series in self.series(dataset):
            if series.rule:
                found[series.base] = (*found.get(series.base, ()), series)
        return found

    def variant(self, series: Series) -> int:
        """Position of a line among those of its method and rule."""
        same = [
            s for s in self.series(series.dataset)
            if (s.method, s.rule) == (series.method, series.rule)
        ]  # fmt: skip
        return same.index(series) if series in same else 0

    def short_name(self, series: Series) -> str:
        """The label of a line, without steps if its method has only one number of steps."""
        steps = {s.steps for s in self.series(series.dataset) if s.method == series.method}
        steps.add(series.steps)
        return (series if len(steps) > 1 else replace(series, steps=0)).label

    def guidances(self, dataset: str) -> tuple[float, ...]:
        """The guidance scales of a data set, ascending, without those of `only_matched` rows."""
        if dataset not in self._scales:
            lines = [
                cells
                for s, cells in self._cells.items()
                if s.dataset == dataset and s.method != FLOOR
            ]
            named = {g for cells in lines for g, rows in cells.items() if _swept(rows)}
            self._scales[dataset] = tuple(sorted(named))
        return self._scales[dataset]

    @cached_property
    def _scales(self) -> dict[str, tuple[float, ...]]:
        """The scales looked up so far, by data set."""
        return {}

    def rows_of(self, series: Series, guidance: float | None = None) -> tuple[Row, ...]:
        """The rows of a line at one guidance scale or at all; lowest seeds first."""
        cells = self._cells.get(series, {})
        found = [cells.get(guidance, [])] if guidance is not None else list(cells.values())
        return tuple(row for rows in found for row in rows)

    def cell(self, column: Column, series: Series, guidance: float) -> Cell:
        """The values of one measure for one line at one guidance scale."""
        place = (column.key, series, guidance)
        if place not in self._found:
            rows = self.rows_of(series, guidance)
            found = _measured(rows, column)
            troubles = tuple(r for r in rows if r.status != "ok" and r.n == column.n)
            self._found[place] = Cell(found, troubles)
        return self._found[place]

    @cached_property
    def _found(self) -> dict[tuple[Key, Series, float], Cell]:
        """The cells looked up so far: they keep their means and errors."""
        return {}

    def cells(self, column: Column, series: Series) -> dict[float, Cell]:
        """The cells of a line that have values, by guidance scale, ascending."""
        cells = {g: self.cell(column, series, g) for g in self.guidances(column.dataset)}
        return {g: cell for g, cell in cells.items() if cell.found}

    def running(self, column: Column, series: Series) -> dict[float, Cell]:
        """The cells of a line by guidance that have values and no seed that diverged or failed."""
        return {g: cell for g, cell in self.cells(column, series).items() if not cell.troubles}

    def everywhere(self, column: Column, series: Series) -> dict[float, Cell]:
        """The same, with the scales of `only_matched` rows."""
        cells = {g: self.cell(column, series, g) for g in self._cells.get(series, {})}
        return {g: cell for g, cell in cells.items() if cell.found and not cell.troubles}

    def cost(self, series: Series, guidance: float) -> tuple[int, float]:
        """Evaluations and seconds per image of a line at a scale; 0.0 if nothing was timed.

        Seconds are the median over all rows of the line with as many evaluations: a single timing
        is noisy, and the work is the same. Those measured under load compare nothing.
        """
        nfe = max((r.nfe for r in self.rows_of(series, guidance) if r.status == "ok"), default=0)
        rows = [r for r in self.rows_of(series) if r.status == "ok" and r.nfe == nfe]
        seconds = [
            r.seconds_per_image for r in rows if r.seconds_per_image > 0 and not r.under_load
        ]
        return nfe, median(seconds) if seconds else 0.0

    def floor(self, column: Column) -> Cell:
        """Real against real, over all its runs; empty if it is not comparable."""
        rows = [r for r in self.rows if r.method == FLOOR and column not in self.notes]
        return Cell(_measured(rows, column))


def _measured(rows: Iterable[Row], column: Column) -> tuple[tuple[Row, Value], ...]:
    """The values of one measure. Experiments share their real samples, which count once."""
    found = [(r, v) for r, v in values(rows) if key_of(r, v) == column.key]
    distinct = {(r.seed,) if r.method == FLOOR else identity(r): (r, v) for r, v in found}
    return tuple(distinct.values())


def _short_name(row: Row) -> str:
    """The preset in the usual name of a run, '' for the data set's own; other names as they are."""
    usual = rf"{re.escape(row.dataset)}-(?:(.*)-)?{re.escape(row.method)}-s{row.train_seed}"
    found = re.fullmatch(usual, row.run)
    return found[1] or "" if found else row.run


def _swept(rows: Iterable[Row]) -> bool:
    return not all(row.only_matched for row in rows)


def prepare(rows: Sequence[Row]) -> Data:
    """Keep the rows that count. Raises `UserError` if some of them cannot share a column."""
    if not rows:
        raise UserError("There are no rows to report: run the sweep first.")
    ordered = sorted({identity(r): r for r in sorted(rows, key=age)}.values(), key=place)
    trained = of_newest_weights(ordered)
    current = of_newest_code(trained)
    kept = newest(current)
    return Data(
        tuple(kept),
        *make_columns(current),
        stale=len(ordered) - len(trained),
        outdated=len(trained) - len(current),
        superseded=len(current) - len(kept),
    )
