"""Rows to a tidy frame: which rows count, which belong together, which may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from bench.experiment.rows import Row, Value
from bench.report.numbers.cells import Cell
from bench.report.numbers.counting import (
    age,
    newest,
    of_newest_code,
    of_newest_weights,
    place,
    variant,
)
from bench.report.numbers.names import FLOOR, FLOOR_LABEL, method_order
from bench.system.errors import UserError
from metrics import METRICS
from metrics.about import About
from metrics.base import ARROWS, Direction

MEASURED_BY = "code or settings of the measure"


@dataclass(frozen=True)
class Column:
    """One measure of one data set: what may stand in one column and on one axis."""

    dataset: str
    metric: str
    extractor: str
    label: str
    direction: Direction
    n: int
    version: int
    extractor_hash: str
    reference: str
    reference_hash: str
    reference_n: int
    about: About = field(compare=False)

    @property
    def title(self) -> str:
        """The metric's name with extractor and n, such as "FD classifier @300"."""
        return " ".join(part for part in (self.label, self.extractor, f"@{self.n}") if part)

    @property
    def arrow(self) -> str:
        """The better direction, '' where there is none."""
        return ARROWS[self.direction]


@dataclass(frozen=True)
class Series:
    """One line of a table or figure: a method at a number of steps.

    `run` is '' unless one training seed of the method has several runs: those differ in more than
    chance, so they are not averaged.
    """

    dataset: str
    method: str
    steps: int
    run: str = ""
    rule: str = ""
    """Of guidance at sampling; '' is CFG, or a method that is guided in its own way."""

    @property
    def label(self) -> str:
        """What a table or legend shows."""
        if self.method == FLOOR:
            return FLOOR_LABEL
        name = f"{self.method} [{self.run}]" if self.run else self.method
        name += f" + {self.rule}" if self.rule else ""
        if self.steps < 1:
            return name
        return f"{name}, {self.steps} step{'' if self.steps == 1 else 's'}"


@dataclass(frozen=True)
class Data:
    """What a report is made of: the rows that count, and how they group."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    stale: int
    outdated: int
    superseded: int
    notes: tuple[tuple[Column, str], ...]

    @cached_property
    def _names(self) -> dict[str, str]:
        """Key of a row to the run name that its series carries."""
        several = len({row.experiment for row in self.rows}) > 1
        names = {r.key: f"{r.experiment}/{r.run}" if several else r.run for r in self.rows}
        owners: dict[tuple[str, str, int], set[str]] = {}
        for row in self.rows:
            owners.setdefault((row.dataset, row.method, row.train_seed), set()).add(names[row.key])
        split = {(d, m) for (d, m, _), runs in owners.items() if len(runs) > 1 and m != FLOOR}
        return {r.key: names[r.key] if (r.dataset, r.method) in split else "" for r in self.rows}

    def series_of(self, row: Row) -> Series:
        """Return the line that a row belongs to."""
        steps = 0 if row.method == FLOOR else row.steps
        rule = self._variants.get((row.dataset, row.method, row.rule, variant(row)), row.rule)
        return Series(row.dataset, row.method, steps, self._names[row.key], rule)

    @cached_property
    def _variants(self) -> dict[tuple[str, str, str, str], str]:
        """What a rule with settings of several origins is called, by those."""
        found: dict[tuple[str, str, str], set[str]] = {}
        for row in self.rows:
            if row.rule:
                found.setdefault((row.dataset, row.method, row.rule), set()).add(variant(row))
        return {
            (*owner, variant): f"{owner[2]} ({variant})" if variant else owner[2]
            for owner, variants in found.items()
            if len(variants) > 1
            for variant in variants
        }

    @cached_property
    def _cells(self) -> dict[Series, dict[float, list[Row]]]:
        cells: dict[Series, dict[float, list[Row]]] = {}
        for row in self.rows:
            cells.setdefault(self.series_of(row), {}).setdefault(row.guidance, []).append(row)
        for series in [s for s in cells if s.rule]:
            # Without guidance no rule acts: those rows belong to the lines of all rules, but for
            # one that cannot be used here, which would be compared by what is not its own.
            off = cells.get(replace(series, rule=""), {}).get(1.0, [])
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
        """Return the lines of a data set in the order of tables and legends, without the floor."""
        return self._lines.get(dataset, ())

    @cached_property
    def _lines(self) -> dict[str, tuple[Series, ...]]:
        found = [s for s in self._cells if s.method != FLOOR]
        # Methods stand together, all their rules behind them.
        found.sort(
            key=lambda s: (s.rule != "", method_order(s.method), s.run, s.steps, s.rule),
        )
        names = {s.dataset for s in found}
        return {name: tuple(s for s in found if s.dataset == name) for name in names}

    def variant(self, series: Series) -> int:
        """Position of a line among those of its method and rule."""
        key = (series.method, series.rule)
        same = [s for s in self.series(series.dataset) if (s.method, s.rule) == key]
        return same.index(series) if series in same else 0

    def short_name(self, series: Series) -> str:
        """The label of a line, without steps where its method has one number of them."""
        steps = {s.steps for s in self.series(series.dataset) if s.method == series.method}
        return (series if len(steps) > 1 else replace(series, steps=0)).label

    def guidances(self, dataset: str) -> tuple[float, ...]:
        """Return the guidance scales of a data set, ascending."""
        return tuple(sorted({g for s in self.series(dataset) for g in self._cells[s]}))

    def rows_of(self, series: Series, guidance: float | None = None) -> tuple[Row, ...]:
        """Return the rows of a line, of one guidance scale or of all; lowest seeds first."""
        cells = self._cells.get(series, {})
        found = [cells.get(guidance, [])] if guidance is not None else list(cells.values())
        return tuple(row for rows in found for row in rows)

    def cell(self, column: Column, series: Series, guidance: float) -> Cell:
        """Return the values of one measure for one line at one guidance scale."""
        rows = self.rows_of(series, guidance)
        found = [(r, v) for r in rows for v in measured(r) if _is(column, v)]
        return Cell(tuple(found), tuple(r for r in rows if r.status != "ok" and r.n == column.n))

    def cells(self, column: Column, series: Series) -> dict[float, Cell]:
        """Return the cells of a line that have values, by guidance scale, ascending."""
        cells = {g: self.cell(column, series, g) for g in self.guidances(column.dataset)}
        return {g: cell for g, cell in cells.items() if cell.found}

    def floor(self, column: Column) -> Cell:
        """Real against real, over all its runs; empty where it was not measured comparably."""
        rows = [r for r in self.rows if r.dataset == column.dataset and r.method == FLOOR]
        if any(noted == column for noted, _ in self.notes):
            return Cell()
        return Cell(tuple((r, v) for r in rows for v in measured(r) if _is(column, v)))


def prepare(rows: Sequence[Row]) -> Data:
    """Keep the rows that count and refuse those that cannot share a column.

    Raises `UserError` naming the difference.
    """
    if not rows:
        raise UserError("There are no rows to report: run the sweep first.")
    ordered = sorted({(r.run, r.key): r for r in sorted(rows, key=age)}.values(), key=place)
    trained = of_newest_weights(ordered)
    current = of_newest_code(trained)
    columns, notes = _columns(current)
    kept = newest(current)
    return Data(
        rows=tuple(kept),
        columns=columns,
        stale=len(ordered) - len(trained),
        outdated=len(trained) - len(current),
        superseded=len(current) - len(kept),
        notes=notes,
    )


def measured(row: Row) -> tuple[Value, ...]:
    """Return the values of a row; those of a cell that did not end well are not results."""
    return row.values if row.status == "ok" else ()


def _is(column: Column, value: Value) -> bool:
    return (value.metric, value.extractor, value.n) == (column.metric, column.extractor, column.n)


def _facts(row: Row, value: Value) -> dict[str, object]:
    """Return what two values must share to be compared."""
    return {
        "extractor hash": value.extractor_hash,
        "reference set": row.reference,
        "reference hash": row.reference_hash,
        "reference size": row.reference_n,
        "metric version": value.version,
        "direction": value.direction,
        "data hash": row.data_hash,
        MEASURED_BY: value.signature[:12],
    }


def _columns(rows: Sequence[Row]) -> tuple[tuple[Column, ...], tuple[tuple[Column, str], ...]]:
    """Return the measures, and those whose floor cannot stand beside them with the reason."""
    columns: dict[tuple[str, str, str, int], tuple[Column, Row, Value]] = {}
    notes: dict[Column, str] = {}
    of_floor: set[tuple[str, str, str, int]] = set()
    told = {v.metric: v.about for row in sorted(rows, key=age) for v in measured(row) if v.about}
    # The floor comes last in the order of methods, so generated rows set the terms.
    for row in sorted(rows, key=lambda r: r.method == FLOOR):
        for value in measured(row):
            key = (row.dataset, value.metric, value.extractor, value.n)
            if key not in columns:
                about = told.get(value.metric) or _about(value.metric)
                columns[key] = (_column(row, value, about), row, value)
                continue
            column, first, other = columns[key]
            there, here = _facts(first, other), _facts(row, value)
            wrong = next((name for name in there if there[name] != here[name]), None)
            if wrong == MEASURED_BY and "" in (there[wrong], here[wrong]):
                wrong = None  # it is the last, and rows from before it do not tell it
            if wrong is None:
                continue
            difference = f"{wrong} is {there[wrong]!r} for {_who(first)}"
            difference += f" and {here[wrong]!r} for {_who(row)}"
            if row.method == FLOOR != first.method:
                notes[column] = f"The floor is left out, since it is not comparable: {difference}."
                continue
            advice = "report them separately or measure them in the same way"
            if wrong == MEASURED_BY:
                advice = "run the sweep of the older rows again to measure them with today's code"
            raise UserError(
                f"These rows cannot share the column {column.title!r} of {row.dataset}: "
                f"{difference}; {advice}."
            )
    real = [
        (row.dataset, v.metric, v.extractor, v.n)
        for row in rows
        if row.method == FLOOR
        for v in measured(row)
    ]
    for key in [key for key, (_, first, _) in columns.items() if first.method == FLOOR]:
        # Real samples alone are no column beside generated ones of another number.
        for same in [k for k in columns if k[:3] == key[:3] and columns[k][1].method != FLOOR]:
            column, first, _ = columns[same]
            if same not in real:
                notes[column] = (
                    f"The floor is left out, since it is not comparable: n is {column.n} for "
                    f"{_who(first)} and {key[3]} for {_who(columns[key][1])}."
                )
            of_floor.add(key)
    found = sorted(
        (c for k, (c, _, _) in columns.items() if k not in of_floor),
        key=lambda c: (c.dataset, c.about.order, c.metric, c.extractor, c.n),
    )
    return tuple(found), tuple(notes.items())


def _column(row: Row, value: Value, about: About) -> Column:
    return Column(
        dataset=row.dataset,
        metric=value.metric,
        extractor=value.extractor,
        label=value.label,
        direction=value.direction,
        n=value.n,
        version=value.version,
        extractor_hash=value.extractor_hash,
        reference=row.reference,
        reference_hash=row.reference_hash,
        reference_n=row.reference_n,
        about=about,
    )


def _about(metric: str) -> About:
    """The facts of a metric that no row states, since all are from before rows did.

    Those of the registered metric of that name. Precision and its like by another number of
    neighbours than those registered have the same ones.
    """
    if metric in METRICS:
        return METRICS[metric].about
    stem, by_k, k = metric.partition("_k")
    if f"{stem}_k3" not in METRICS:
        return About()
    known = METRICS[f"{stem}_k3"].about
    return known.model_copy(update={"against": known.against.replace("_k3", by_k + k)})


def _who(row: Row) -> str:
    return f"{row.method} (run {row.run}, g = {row.guidance:g}, seed {row.seed})"
