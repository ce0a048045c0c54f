"""The contents of a report in order: opening, data sets, further sections, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from bench.experiment.formatting import kid_below_zero
from bench.experiment.rows import Row
from bench.report.document import (
    DASH,
    OF_DATASET,
    Block,
    Details,
    Document,
    Facts,
    Figure,
    Form,
    Heading,
    Paragraph,
    Problems,
    Table,
    link,
    paragraph,
    words_table,
)
from bench.report.figures.figures import Plan
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import Comparison
from bench.report.numbers.frame import Data
from bench.report.numbers.inversions import Inversions
from bench.report.numbers.matched import Matched
from bench.report.numbers.names import numbers, slug
from bench.report.numbers.pairs import Difference
from bench.report.numbers.yardstick import Yardstick
from bench.report.pages.comparison import folded, opening, ranking_table, tex_tables
from bench.report.pages.inversions import inversion_section
from bench.report.pages.measures import (
    difference_table,
    measure_table,
    measure_title,
    titled,
)
from bench.report.pages.yardstick import yardstick_section
from bench.system.errors import counted

READING = (
    "Guidance is g, 1 = off. ↓: lower is better, ↑: higher is better; the best of a column is "
    "bold, an empty cell was not run. ± is one standard error. NFE: network evaluations per image."
)
DIFFERENCES = "Paired differences at the same seeds"
COMPARED = (
    "Each method less the best of its column at the same sampling seeds, hence the same noise and "
    "labels, ± the jackknife standard error of that difference, for these weights. *: significant "
    "at 5% (more than 1.96 standard errors), not corrected for multiple comparisons."
)
OUTCOMES = {"ok": "measured", "skip": "skipped", "diverged": "diverged", "failed": "failed"}


@dataclass(frozen=True)
class Findings:
    """All results from the rows of one report; `lines` are comparisons by data set."""

    data: Data
    lines: Mapping[str, Comparison]
    differences: Mapping[Column, tuple[Difference, ...]]
    yardsticks: tuple[Yardstick, ...]
    inversions: Inversions | None
    matched: Mapping[str, Matched]

    @cached_property
    def tables(self) -> dict[Column, Table]:
        """The table of every measure."""
        return {column: measure_table(self.data, column) for column in self.data.columns}


def make_document(
    found: Findings,
    note: Mapping[str, str],
    figures: Sequence[Plan],
    exact: Sequence[Plan],
    edits: Sequence[Plan],
) -> Document:
    """The report with its figures: of methods, of the exact denoiser (`exact`) and of edits."""
    data = found.data
    figures, exact = (tuple(_captioned(plan, data) for plan in plans) for plans in (figures, exact))
    lacking = {d: [*_not_measured(data, d), *_overlaps(data, d)] for d in data.datasets}
    parts = {dataset: tuple(_dataset(found, dataset, figures)) for dataset in data.datasets}
    blocks = [
        *_opening(data, note),
        *chain.from_iterable(parts.values()),
        *tex_tables(found.lines),
        *yardstick_section(found.yardsticks, _by_dataset(exact)),
        *(inversion_section(found.inversions, _by_dataset(edits)) if found.inversions else ()),
        *_without_result(data),
        *_provenance(data),
    ]
    left = left_out(data)
    told = chain.from_iterable(_overlaps(data, dataset) for dataset in data.datasets)
    remarks = (READING, *left, *told, *_unmeasured(data))
    title = f"Results of {', '.join(sorted({row.experiment for row in data.rows}))}"
    datasets = {
        _file(dataset): Document(title, (READING, *left, *lacking[dataset]), own)
        for dataset, own in parts.items()
        if any(column.dataset == dataset for column in data.columns)
    }
    return Document(title, remarks, tuple(blocks), datasets)


def _file(dataset: str) -> str:
    """The Markdown file with the tables of a data set."""
    return f"tables-{slug(dataset)}.md"


def _opening(data: Data, note: Mapping[str, str]) -> Iterator[Block]:
    count = {w: sum(r.status == status for r in data.rows) for status, w in OUTCOMES.items()}
    counts = ", ".join(f"{n} {word}" for word, n in count.items() if n)
    yield paragraph(
        f"{counted(len(data.rows), 'cell')} ({counts}); a cell is a method at a guidance "
        "scale, a number of steps and a sampling seed. "
        f"{READING} The same numbers: ",
        *(link("summary.csv"), " (hashes: ", link("provenance.csv"), "), "),
        *(link("tables.md"), ", ", link("tables.tex"), ". For a paper: "),
        *(link("paper.md"), ", ", link("paper.tex"), "."),
    )
    yield from map(paragraph, left_out(data))
    yield Problems()
    if note:
        yield Facts(tuple(note.items()))
    yield Heading("What was run")
    lines = []
    for series in (series for dataset in data.datasets for series in data.series(dataset)):
        rows = data.rows_of(series)
        scales = numbers(r.guidance for r in rows)
        train = numbers(r.train_seed for r in rows)
        label = ", ".join(part for part in (series.label, data.shared(series.dataset)) if part)
        lines.append((series.dataset, label, scales, train, numbers(r.seed for r in rows)))
    head = ("data set", "method", "guidance g", "training seeds", "sampling seeds")
    yield words_table(head, lines)


def left_out(data: Data) -> list[str]:
    """How many rows do not count, and why."""
    reasons = (
        (data.stale, "of older checkpoints left out: the runs were trained again."),
        (data.outdated, "of older code left out. Run the same sweep again to fill empty cells."),
        (data.superseded, "left out: their cells were run again."),
    )
    return [f"{counted(count, 'row')} {why}" for count, why in reasons if count]


def _unmeasured(data: Data) -> list[str]:
    """Why data sets have no values, for each data set without any."""
    measured = {column.dataset for column in data.columns}
    lines = []
    for dataset in data.datasets:
        if dataset not in measured:
            rows = [row for row in data.rows if row.dataset == dataset]
            reasons = dict.fromkeys(f"{r.method}: {r.status}, {r.reason}" for r in rows)
            lines.append(f"Nothing was measured on {dataset} ({'; '.join(reasons)}).")
    return lines


def _not_measured(data: Data, dataset: str) -> list[str]:
    """Why cells of a data set have no value of some measures."""
    rows = [row for row in data.rows if row.dataset == dataset and row.status == "ok"]
    sizes = {row.n for row in rows}
    found: dict[str, set[int]] = {}
    for row in rows:
        for reason in row.unmeasured.values():
            found.setdefault(reason, set()).add(row.n)
    alike: dict[tuple[str, str], list[str]] = {}
    for reason, sized in sorted(found.items()):
        what, _, why = reason.partition(": ")
        small = "" if sized == sizes else f" (n = {numbers(sized)})"
        alike.setdefault((why, small), []).append(what)
    return [
        f"Not measured on {dataset}: {': '.join(filter(None, (', '.join(what), why)))}{small}."
        for (why, small), what in alike.items()
    ]


def _overlaps(data: Data, dataset: str) -> list[str]:
    """Which lines have a KID that only samples of the reference itself have."""
    found = []
    for column in (c for c in data.columns if (c.dataset, c.metric) == (dataset, "kid")):
        for series in data.series(dataset):
            cells = data.everywhere(column, series)
            told = {
                g: text
                for g, cell in cells.items()
                if (text := kid_below_zero(cell.mean, cell.estimate.se))
            }
            if told:
                head = f"“{series.label}” at g = {numbers(told)}: "
                found.append(head + next(iter(told.values())).replace("KID", column.title, 1))
    return found


def _dataset(found: Findings, dataset: str, figures: Sequence[Plan]) -> Iterator[Block]:
    """The comparison of all lines, a table and a curve per measure, then the other figures."""
    own = [column for column in found.data.columns if column.dataset == dataset]
    plans = [plan for plan in figures if plan.dataset == dataset]
    yield Heading(dataset, forms=OF_DATASET | Form.MARKDOWN if own else Form.PAGE)
    if not own:
        yield paragraph("Nothing was measured; the reasons are below.")
    yield from opening(found.data, found.lines, found.matched, dataset)
    if own:
        yield Paragraph(("All tables: ", link(_file(dataset)), "."), Form.MARKDOWN)
    yield from map(paragraph, _not_measured(found.data, dataset))
    yield from (_figure(plan) for plan in plans if plan.first)
    # The comparisons of all measures are in the CSV files; a page with all of them is too long.
    compared = [c for c in own if c.about.lead or c.about.against] or own
    for column in own:
        yield found.tables[column]
        if column in found.differences and column in compared:
            yield from _differences(found, column)
        rankings = found.lines[dataset].rankings if dataset in found.lines else {}
        if column in rankings and column in compared:
            yield folded(ranking_table(rankings[column]))
        yield from (_figure(plan) for plan in plans if plan.column == column)
    rest = [_figure(p) for p in plans if p.column is None and not p.first]
    if rest:
        yield Heading("Further figures", 3)
    yield from rest


def _differences(found: Findings, column: Column) -> Iterator[Block]:
    """The paired differences, in Markdown with the measure in their title."""
    table = difference_table(found.data, column, found.differences[column])
    source = Paragraph((f"{COMPARED} ", link("differences.csv")), kind="notes")
    yield Details(titled(DIFFERENCES, column), (table, source), Form.PAGE)
    whole = f"{DIFFERENCES}: {measure_title(column)}"
    yield Details(whole, (table, paragraph(COMPARED)), Form.DATASET)


def _captioned(plan: Plan, data: Data) -> Plan:
    """The figure with the unusual sampling of its lines in the caption."""
    shared = data.shared(plan.dataset)
    return replace(plan, caption=f"{plan.caption} Sampling: {shared}.") if shared else plan


def _figure(plan: Plan) -> Figure:
    return Figure(plan.name, plan.caption)


def _by_dataset(plans: Sequence[Plan]) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {}
    for plan in plans:
        found.setdefault(plan.dataset, []).append(_figure(plan))
    return found


def _without_result(data: Data) -> Iterator[Block]:
    """Cells without a value, by line and reason."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in data.rows:
        if row.status != "ok":
            label = data.series_of(row).label
            groups.setdefault((row.dataset, label, row.status, row.reason), []).append(row)
    if groups:
        yield Heading("Cells without a result")
        lines = [
            (dataset, label, numbers(r.guidance for r in rows), OUTCOMES[status], reason)
            for (dataset, label, status, reason), rows in groups.items()
        ]
        yield words_table(("data set", "method", "guidance g", "outcome", "reason"), lines)


def _provenance(data: Data) -> Iterator[Block]:
    """Hashes of weights, measures and data sets, and facts of software and machine."""
    yield Heading("Provenance")
    yield Heading("Weights", 3)
    weights = {(r.dataset, r.run, r.method, str(r.train_seed), r.checkpoint) for r in data.rows}
    lines = sorted(w for w in weights if w[-1])
    if lines:
        head = ("data set", "run", "method", "training seed", "SHA-256 of the weights")
        yield words_table(head, lines, code=True)
    else:
        yield paragraph("No row has weights.")
    yield Heading("Measures", 3)
    yield words_table(
        ("data set", "measure", "version", "extractor hash", "reference set", "reference hash"),
        [
            (
                *(c.dataset, c.title, str(c.version), c.extractor_hash or DASH),
                *(f"{c.reference} ({c.reference_n})", c.reference_hash),
            )
            for c in data.columns
        ],
        code=True,
    )
    yield Heading("Data sets", 3)
    hashes = sorted({(r.dataset, r.data_hash) for r in data.rows})
    yield words_table(("data set", "hash"), hashes, code=True)
    yield Heading("Software and machine", 3)
    facts: dict[str, Counter[str]] = {}
    for row in data.rows:
        for name, text in row.provenance.items():
            facts.setdefault(name, Counter())[text] += 1
    if not facts:
        yield paragraph("The rows state none.")
        return

    def shown(values: Counter[str]) -> str:
        """The values, with their numbers of rows if rows differ."""
        several = len(values) > 1
        found = sorted(values.items())
        return "; ".join(f"{t} ({counted(n, 'row')})" if several else t for t, n in found)

    found = [(name, shown(values)) for name, values in sorted(facts.items())]
    yield words_table(("", "in the rows"), found)
