"""The page that compares two experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bench.report.document import (
    ON_SCREEN,
    Block,
    Document,
    Heading,
    Line,
    Paragraph,
    Table,
    Text,
    link,
)
from bench.report.numbers.against import Against, Change
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data
from bench.report.numbers.verdict import listed, named
from bench.report.pages.cells import difference_text
from bench.report.pages.measures import measure_title
from bench.system.errors import counted

NOTES = (
    "Paired: at the sampling seeds that both have, hence the same noise and labels, with the "
    "jackknife standard error, for these weights. Cells without common replicates are compared as "
    "if they were independent.",
    "*: significant at 5%, adjusted for all cells of the table (Holm). =: the same value bit for "
    "bit.",
)


def against_document(
    ours: Data, theirs: Data, names: tuple[str, str], found: Against, csv: str
) -> Document:
    """Statements and tables of differences; `names` are this experiment and the other."""
    here, there = names
    blocks: list[Block] = [
        Paragraph((f"Each number is the value in {here} less that in {there}. "
                   "The same numbers, with both values: ", link(csv), "."), ON_SCREEN)
    ]  # fmt: skip
    for dataset in ours.datasets:
        own = {c: changes for c, changes in found.changes.items() if c.dataset == dataset}
        blocks.append(Heading(dataset, forms=ON_SCREEN))
        blocks += [
            Paragraph((text,), ON_SCREEN, "verdict")
            for text in _statements(ours, theirs, names, found, dataset)
        ]
        blocks += [_table(ours, column, changes) for column, changes in own.items()]
    return Document(f"{here} against {there}", (), tuple(blocks))


def _statements(
    ours: Data, theirs: Data, names: tuple[str, str], found: Against, dataset: str
) -> Iterator[str]:
    here, there = names
    for column, changes in found.changes.items():
        if column.dataset == dataset and column.about.is_headline:
            yield _summary(column, changes, here)
    for column, why in found.skipped.items():
        if column.dataset == dataset:
            yield f"{column.title} cannot be compared: {why}."
    lines, others = ours.series(dataset), theirs.series(dataset)
    for name, some in (
        (here, [s for s in lines if s not in others]),
        (there, [s for s in others if s not in lines]),
    ):
        if some:
            yield f"Only {name} has {named(some)}."


def _summary(column: Column, changes: Sequence[Change], here: str) -> str:
    """How many cells differ, and in which direction."""
    same = sum(change.is_same for change in changes)
    differ = [change for change in changes if change.is_significant and change.value]
    cells = counted(len(changes), "cell")
    have = "has" if same == 1 else "have"
    head = f"{column.title}: of {cells} that both have, {same} {have} the same value"
    if not differ:
        return f"{head}, and none differs significantly."
    lower = Counter(change.value < 0 for change in differ)
    words = {True: "lower", False: "higher"}
    if column.direction != "none":
        words = {
            low: "better" if low == (column.direction == "lower") else "worse" for low in words
        }
    parts = [f"{lower[low]} significantly {words[low]}" for low in (True, False) if lower[low]]
    text = f"{head}; {listed(parts)} in {here}"
    if largest := [c for c in differ if c.less is not None and c.less.se > 0]:
        top = max(largest, key=lambda c: abs(c.value))
        text += (
            f". The largest such difference is at g = {top.guidance:g} of {named([top.series])}: "
            f"{top.here.value:.4g} instead of {top.there.value:.4g}"
        )
    return f"{text}."


def _table(data: Data, column: Column, changes: Sequence[Change]) -> Table:
    scales = sorted({change.guidance for change in changes})
    cells = {(change.series, change.guidance): _cell(change) for change in changes}
    lines = [s for s in data.series(column.dataset) if any((s, g) in cells for g in scales)]
    return Table(
        title=measure_title(column),
        names=tuple(f"g = {g:g}" for g in scales),
        lines=tuple(
            Line(
                series.label,
                tuple(cells.get((series, g), Text("")) for g in scales),
                group=f"{series.base.label}: guidance rules" if series.rule else "",
            )
            for series in lines
        ),
        notes=tuple(("", note) for note in NOTES),
        forms=ON_SCREEN,
    )


def _cell(change: Change) -> Text:
    if change.is_same:
        return Text("=")
    se = None if change.less is None else change.less.se
    return difference_text(change.value, se, change.is_significant)
