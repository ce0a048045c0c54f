"""The end of the page: cells without a result, and where the numbers come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bench.experiment.rows import Row
from bench.report.document import DASH, Block, Heading, paragraph, words_table
from bench.report.numbers.frame import Data
from bench.report.numbers.words import numbers

OUTCOMES = {"ok": "measured", "skip": "skipped", "diverged": "diverged", "failed": "failed"}


def without_result(data: Data) -> Iterator[Block]:
    """Cells without a value, those of one line and one reason together."""
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


def provenance_section(data: Data) -> Iterator[Block]:
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
    # Where rows disagree, say how many rows each value is of.
    shown = [
        (
            name,
            "; ".join(f"{t} ({n} rows)" if len(some) > 1 else t for t, n in sorted(some.items())),
        )
        for name, some in sorted(facts.items())
    ]
    yield words_table(("", "in the rows"), shown)
