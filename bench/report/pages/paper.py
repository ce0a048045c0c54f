"""Tables for a paper: methods at a few guidance scales, by a few measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.report.document import ON_SCREEN, Block, Document, Form, Heading, Line, Table, Text
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import cost_columns
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR_LABEL, numbers, slug
from bench.report.numbers.pareto import borrowed, precision_pairs
from bench.report.options import PaperOptions
from bench.report.pages.cells import Footnotes, span
from bench.report.pages.measures import BOLD, ENDS, titled
from bench.system.errors import UserError

SCALES = (1.0, 2.0, 4.0, 7.0, 13.0)
"""Shown by default, if at least three of them were run."""
MARKS = "†‡§¶"
NOTE = (
    "NFE: network evaluations per image. ↓: lower is better. ↑: higher is better. Guidance g = 1 "
    "is off."
)
NO_RULE = "At g = 1 no rule acts, and all rules of a method have its value."
REAL = "Floor: a set of real samples measured like a generated one."


def paper_document(data: Data, tables: Mapping[Column, Table], options: PaperOptions) -> Document:
    """One table per data set and number of samples; `tables` are those of all measures.

    Raises `UserError` for a guidance scale or metric that no row has.
    """
    _check(data, options)
    title = f"Tables for a paper: {', '.join(sorted({row.experiment for row in data.rows}))}"
    blocks: list[Block] = []
    for dataset in data.datasets:
        columns = _columns(data, dataset, options.metrics)
        scales = _scales(data.guidances(dataset), options.guidance)
        if columns and scales:
            blocks.append(Heading(dataset, forms=ON_SCREEN))
        for n in dict.fromkeys(c.n for c in columns) if scales else ():
            shown = {c: tables[c] for c in columns if c.n == n}
            blocks.append(_table(data, shown, scales, narrow=options.columns == 1))
    return Document(title, (), tuple(blocks))


def _check(data: Data, options: PaperOptions) -> None:
    scales = {g for dataset in data.datasets for g in data.guidances(dataset)}
    if lacking := set(options.guidance) - scales:
        raise UserError(
            f"--table-guidance: no row has g = {numbers(lacking)}; the rows have {numbers(scales)}."
        )
    for name in options.metrics:
        if not any(_is_called(column, name) for column in data.columns):
            known = ", ".join(sorted({column.metric for column in data.columns}))
            raise UserError(f"--table-metrics: no row has {name!r}; the rows have {known}.")


def _is_called(column: Column, name: str) -> bool:
    """Whether a column has a name such as "precision_k3", or "precision" for any k."""
    return name in (column.metric, column.metric.partition("_k")[0])


def _columns(data: Data, dataset: str, metrics: Sequence[str]) -> list[Column]:
    if not metrics:
        pairs = precision_pairs(data, dataset)
        return list(
            dict.fromkeys([*cost_columns(data, dataset), *(c for pair in pairs for c in pair)])
        )
    own = [column for column in data.columns if column.dataset == dataset]
    return list(dict.fromkeys(c for name in metrics for c in own if _is_called(c, name)))


def _scales(known: Sequence[float], asked: Sequence[float]) -> list[float]:
    """The asked scales that a data set has; by default a few from the lowest to the highest."""
    found = [g for g in asked or SCALES if g in known]
    if asked or len(found) > 2 or len(found) == len(known):
        return found
    places = np.linspace(0, len(known) - 1, min(len(SCALES), len(known))).round().astype(int)
    return [known[i] for i in dict.fromkeys(places.tolist())]


def _table(
    data: Data, tables: Mapping[Column, Table], scales: Sequence[float], narrow: bool
) -> Table:
    column, *_ = tables
    dataset, n = column.dataset, column.n
    extractors = dict.fromkeys(c.extractor for c in tables if c.extractor)
    marks = Footnotes(MARKS)
    lines: list[Line] = []
    for c, table in tables.items():
        name = f"{c.label} ({c.extractor})" if len(extractors) > 1 and c.extractor else c.label
        lines += _lines(data, c.dataset, table, scales, marks, f"{name} {c.arrow}".strip())
    labels = list(dict.fromkeys(c.label for c in tables))
    what = ", ".join(labels[:-1]) + " and " + labels[-1] if len(labels) > 1 else labels[0]
    sets = f"{n:,} generated and {column.reference_n:,} reference samples"
    by = f", {' and '.join(extractors)} features" if extractors else ""
    tested = any(("", BOLD) in table.notes for table in tables.values())
    bold = BOLD if tested else "Bold: the best of a column."
    ruled = any(series.rule for series in data.series(dataset)) and 1.0 in scales
    notes = [
        f"{sets}{by}.",
        NOTE,
        *_errors(tables.values()),
        *([bold] if any(cell.bold for line in lines for cell in line.cells) else []),
        *([NO_RULE] if ruled else []),
        *([REAL] if any(line.kind == "floor" for line in lines) else []),
    ]
    several = len({c.n for c in data.columns if c.dataset == dataset}) > 1
    return Table(
        title=titled(f"{dataset}: {what}" + (f" @{n}" if several else ""), column),
        names=("NFE", *(f"g = {g:g}" for g in scales)),
        lines=tuple(lines),
        notes=(*(("", note) for note in notes), *marks.notes),
        caption=titled(f"{what} on {dataset}", column),
        repeated=1,
        key=slug(dataset, str(n) if several else ""),
        narrow=narrow,
        forms=Form.MARKDOWN | Form.TEX,
    )


def _lines(
    data: Data, dataset: str, table: Table, scales: Sequence[float], marks: Footnotes, group: str
) -> Iterator[Line]:
    """The lines of a measure at some scales, every rule below its method, the floor last."""
    places = [table.names.index(f"g = {g:g}") for g in scales]
    texts = dict(table.notes)
    found = {line.label: line for line in table.lines if line.kind != "aside"}

    def show(cell: Text) -> Text:
        own = (marks.mark(texts[mark]) for mark in cell.marks.split(",") if mark)
        return replace(cell, marks=",".join(own))

    for series in _ordered(data, dataset):
        acting = [g for g in scales if not borrowed(data, series, g)]
        line = found.get(series.label)
        if line is None:
            continue
        at = zip(places, scales, strict=True)
        cells = [show(line.cells[j]) if g in acting else Text("") for j, g in at]
        if any(cell.text for cell in cells):
            nfe = sorted({data.cost(series, g)[0] for g in acting} - {0})
            yield Line(_label(data, series), (Text(span([str(v) for v in nfe])), *cells), "", group)
    if FLOOR_LABEL in found:
        real = found[FLOOR_LABEL].cells[places[0]]
        rest = [Text("") for _ in scales[1:]]
        yield Line(FLOOR_LABEL, (Text(""), real, *rest), "floor", group)


def _ordered(data: Data, dataset: str) -> Iterator[Series]:
    rules = data.ruled(dataset)
    for series in data.series(dataset):
        if not series.rule:
            yield from (series, *rules.pop(series, ()))
    for rest in rules.values():
        yield from rest


def _label(data: Data, series: Series) -> str:
    """The name of a line; a rule below its method has only its own."""
    name = data.short_name(series)
    if not series.rule or not data.rows_of(series.base):
        return name
    return name.removeprefix(f"{replace(series.base, steps=0).label} ")


def _errors(tables: Iterable[Table]) -> Iterator[str]:
    """Sentences on the errors of all measures, without their methods."""
    notes = dict.fromkeys(text for table in tables for mark, text in table.notes if not mark)
    yield from dict.fromkeys(
        f"{text.partition(':')[0]}." for text in notes if text.startswith("± is the standard error")
    )
    if any(text.startswith("± of a single run") for text in notes):
        yield "± of a single run is its standard error."
    yield from (text for text in notes if text == ENDS)
