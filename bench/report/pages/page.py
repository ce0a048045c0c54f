"""The page: everything of a report in one HTML file beside its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from bench.experiment.rows import Row
from bench.report.figures.figures import Plan
from bench.report.numbers.frame import Column, Data
from bench.report.numbers.words import (
    COMPARED,
    DIFFERENCES,
    left_out,
    not_measured,
    numbers,
    reading,
    title,
)
from bench.report.pages.page_style import STYLE
from bench.report.pages.tables import DASH, Table, Text, headed

Cells = Sequence[str]
_OUTCOMES = {"ok": "measured", "skip": "skipped", "diverged": "diverged", "failed": "failed"}


@dataclass(frozen=True)
class Picture:
    """A figure of the page; `problem` says why it could not be drawn."""

    plan: Plan
    problem: str = ""


def page(
    data: Data,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    note: Mapping[str, str],
    sections: Sequence[str] = (),
    before: Mapping[str, Sequence[str]] = MappingProxyType({}),
    after: Mapping[Column, str] = MappingProxyType({}),
) -> str:
    """Return the whole page as HTML.

    `sections` is HTML to stand behind the data sets, `before` to open data sets with, `after` to
    stand behind the table of a measure.
    """
    name = escape(title(data))
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{name}</h1>",
        *_opening(data, pictures, note),
        *(
            part
            for dataset in data.datasets
            for part in _dataset(data, dataset, tables, pictures, before.get(dataset, ()), after)
        ),
        *sections,
        *_without_result(data),
        *_provenance(data),
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _opening(data: Data, pictures: Sequence[Picture], note: Mapping[str, str]) -> Iterator[str]:
    count = {w: sum(r.status == status for r in data.rows) for status, w in _OUTCOMES.items()}
    counts = ", ".join(f"{n} {word}" for word, n in count.items() if n)
    yield (
        f"<p>{len(data.rows)} cell{'' if len(data.rows) == 1 else 's'} ({counts}); a cell is a "
        "method at a guidance scale, a number of steps and a sampling seed. "
        f"{escape(reading())} The same numbers: "
        '<a href="summary.csv">summary.csv</a> (hashes: '
        '<a href="provenance.csv">provenance.csv</a>), <a href="tables.md">tables.md</a>, '
        '<a href="tables.tex">tables.tex</a>.</p>'
    )
    yield from (f"<p>{escape(line)}</p>" for line in left_out(data))
    yield from (f'<p class="problem">{escape(p.problem)}</p>' for p in pictures if p.problem)
    if note:
        facts = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in note.items())
        yield f"<dl>{''.join(facts)}</dl>"
    yield "<h2>What was run</h2>"
    lines = []
    for dataset in data.datasets:
        for series in data.series(dataset):
            rows = data.rows_of(series)
            scales = numbers(r.guidance for r in rows)
            train = numbers(r.train_seed for r in rows)
            lines.append((dataset, series.label, scales, train, numbers(r.seed for r in rows)))
    head = ("data set", "method", "guidance g", "training seeds", "sampling seeds")
    yield _words(head, lines)


def _dataset(
    data: Data,
    dataset: str,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    before: Sequence[str],
    after: Mapping[Column, str],
) -> Iterator[str]:
    """What compares all lines, every measure as table and curve, then the other figures."""
    yield f"<h2>{escape(dataset)}</h2>"
    own = [table for table in tables if table.column.dataset == dataset]
    if not own:
        yield "<p>Nothing was measured; the reasons are below.</p>"
    yield from before
    yield from (f"<p>{escape(line)}</p>" for line in not_measured(data, dataset))
    for picture in pictures:
        if picture.plan.dataset == dataset and picture.plan.first:
            yield html_figure(picture)
    for table in own:
        yield f"<h3>{escape(table.title)}</h3>"
        yield _numbers_table(table)
        if table.differences:
            yield _differences(table)
        yield after.get(table.column, "")
        for picture in pictures:
            if picture.plan.column == table.column:
                yield html_figure(picture)
    for picture in pictures:
        plan = picture.plan
        if plan.dataset == dataset and plan.column is None and not plan.first:
            yield html_figure(picture)


def html_figure(picture: Picture) -> str:
    """A figure with its caption, or why there is none."""
    caption = escape(picture.plan.caption)
    if picture.problem:
        return f'<p class="problem">{escape(picture.problem)}. It would show: {caption}</p>'
    source = f"figures/{picture.plan.name}"
    return (
        f'<figure><a href="{source}.png">'
        f'<img src="{source}.png" alt="{caption}" loading="lazy"></a>'
        f'<figcaption>{caption} <a href="{source}.pdf">PDF</a></figcaption></figure>'
    )


def _numbers_table(table: Table) -> str:
    names = ["method", "NFE", "s/image", *(f"g = {g}" for g in table.guidance)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for heading, line in headed(table.lines):
        if heading:
            lines.append(
                f'<tr class="group"><th scope="rowgroup">{escape(heading)}</th>'
                f'<td colspan="{len(names) - 1}"></td></tr>'
            )
        cells = f"<td>{escape(line.nfe)}</td><td>{escape(line.seconds)}</td>"
        cells += "".join(f"<td>{html_cell(cell)}</td>" for cell in line.cells)
        name = "floor" if line.floor else "aside" if line.aside else ""
        kind = f' class="{name}"' if name else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(line.label)}</th>{cells}</tr>')
    notes = "".join(
        f"<li>{f'<sup>{escape(mark)}</sup> ' if mark else ''}{escape(text)}</li>"
        for mark, text in table.notes
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _differences(table: Table) -> str:
    head = "".join(
        f'<th scope="col">{escape(name)}</th>'
        for name in ("method", *(f"g = {g}" for g in table.guidance))
    )
    lines = [
        f'<tr><th scope="row">{escape(line.label)}</th>'
        + "".join(f"<td>{html_cell(cell)}</td>" for cell in line.cells)
        + "</tr>"
        for line in table.differences
    ]
    return (
        f"<details><summary>{escape(DIFFERENCES)}</summary>"
        f'<div class="scroll" tabindex="0"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="notes">{escape(COMPARED)} <a href="differences.csv">differences.csv</a></p>'
        "</details>"
    )


def html_cell(cell: Text) -> str:
    """A cell as HTML."""
    text = escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.bold else text
    text = f"{text}<sup>{escape(cell.marks)}</sup>" if cell.marks else text
    return f"{text} <small>{escape(cell.error)}</small>" if cell.error else text


def _without_result(data: Data) -> Iterator[str]:
    """Cells without a value, those of one line and one reason together."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in data.rows:
        if row.status != "ok":
            label = data.series_of(row).label
            groups.setdefault((row.dataset, label, row.status, row.reason), []).append(row)
    if groups:
        yield "<h2>Cells without a result</h2>"
        lines = [
            (dataset, label, numbers(r.guidance for r in rows), _OUTCOMES[status], reason)
            for (dataset, label, status, reason), rows in groups.items()
        ]
        yield _words(("data set", "method", "guidance g", "outcome", "reason"), lines)


def _provenance(data: Data) -> Iterator[str]:
    yield "<h2>Provenance</h2>"
    yield "<h3>Weights</h3>"
    weights = {(r.dataset, r.run, r.method, str(r.train_seed), r.checkpoint) for r in data.rows}
    lines = sorted(w for w in weights if w[-1])
    if lines:
        head = ("data set", "run", "method", "training seed", "SHA-256 of the weights")
        yield _words(head, lines, code=True)
    else:
        yield "<p>No row has weights.</p>"
    yield "<h3>Measures</h3>"
    yield _words(
        ("data set", "measure", "version", "extractor hash", "reference set", "reference hash"),
        [
            (
                c.dataset,
                c.title,
                str(c.version),
                c.extractor_hash or DASH,
                f"{c.reference} ({c.reference_n})",
                c.reference_hash,
            )
            for c in data.columns
        ],
        code=True,
    )
    yield "<h3>Data sets</h3>"
    yield _words(
        ("data set", "hash"), sorted({(r.dataset, r.data_hash) for r in data.rows}), code=True
    )
    yield "<h3>Software and machine</h3>"
    facts: dict[str, dict[str, int]] = {}
    for row in data.rows:
        for name, text in row.provenance.items():
            counts = facts.setdefault(name, {})
            counts[text] = counts.get(text, 0) + 1
    if not facts:
        yield "<p>The rows state none.</p>"
        return
    # Where rows disagree, say how many rows each value is of.
    shown = [
        (
            name,
            "; ".join(f"{t} ({n} rows)" if len(some) > 1 else t for t, n in sorted(some.items())),
        )
        for name, some in sorted(facts.items())
    ]
    yield _words(("", "in the rows"), shown)


def _words(head: Cells, lines: Sequence[Cells], code: bool = False) -> str:
    """Return a table of text; with `code`, long hashes in its last columns may break anywhere."""

    def show(text: str) -> str:
        inner = escape(text)
        return f"<code>{inner}</code>" if code and len(text) >= 32 and " " not in text else inner

    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{show(text)}</td>' for text in line)}</tr>" for line in lines
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="words"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
