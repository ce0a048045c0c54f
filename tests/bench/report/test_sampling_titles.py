"""Unusual labels, samplers and grids: in titles if all lines share them, otherwise in names."""

from collections.abc import Iterable, Iterator

from bench.report.document import Block, Details, Figure, Table
from bench.report.figures.figures import plan_figures
from bench.report.numbers.comparison import compare
from bench.report.numbers.frame import prepare
from bench.report.numbers.matched import match_lines
from bench.report.numbers.pairs import headline_differences
from bench.report.numbers.yardstick import make_yardsticks
from bench.report.options import PaperOptions
from bench.report.pages.contents import Findings, make_document
from bench.report.pages.paper import paper_document
from tests.bench.report.factory import digits, row, value
from tests.bench.report.rules_factory import sweep

SHARED = {"sampler": "sde", "labels": "random"}


def under(rows, **settings):
    """The rows with other settings of their samples; real ones have none."""
    return [r.model_copy(update=settings if r.method != "real" else {}) for r in rows]


def tables(blocks: Iterable[Block]) -> Iterator[Table]:
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Details):
            for table in tables(block.blocks):
                yield table if table.title else Table(block.title, table.names, table.lines)


def documents(rows):
    data = prepare(rows)
    found = Findings(
        data, compare(data), headline_differences(data), make_yardsticks(data), None,
        match_lines(data),
    )  # fmt: skip
    document = make_document(found, {}, list(plan_figures(data, ())), [], [])
    return document, paper_document(data, found.tables, PaperOptions())


def test_settings_that_all_lines_share_are_in_every_title_and_in_no_name():
    rows = sweep("digits")
    plain, other = documents(rows), documents(under(rows, **SHARED))
    words = " (sde, random labels)"
    measured = 0
    for before, after in zip(plain, other, strict=True):
        pairs = zip(tables(before.blocks), tables(after.blocks), strict=True)
        for usual, shared in pairs:
            if usual.title:
                assert shared.title == usual.title + words
                measured += 1
                assert [line.label for line in shared.lines] == [li.label for li in usual.lines]
            assert shared.caption == (usual.caption + words if usual.caption else "")
    assert measured > 5
    figures = [block for block in other[0].blocks if isinstance(block, Figure)]
    assert figures
    assert all(f.caption.endswith(" Sampling: sde, random labels.") for f in figures)


def test_what_only_some_lines_share_is_in_their_names():
    first, *rest = [r for r in digits() if r.method == "edm"]
    cosine = first.model_copy(update={"grid": "cosine", "key": "cosine"})
    data = prepare(under([first, cosine, *rest], labels="random"))
    names = {series.label for series in data.series("digits")}
    assert names == {"edm, 18 steps", "edm, 18 steps, cosine grid"}
    assert {column.sampling for column in data.columns} == {"random labels"}


def test_real_samples_have_no_settings():
    data = prepare(under(digits(), **SHARED))
    assert data.shared("digits") == "sde, random labels"
    assert [s.label for s in data.series("digits")] == [
        s.label for s in prepare(digits()).series("digits")
    ]


def test_lines_of_other_settings_are_not_averaged():
    """They share run, scale, steps and sampling seeds, and differ in one setting."""
    settings = [{}, {"sampler": "sde"}, {"grid": "cosine"}, {"labels": "random"}]
    rows = [
        row("digits", "edm", 3.0, value("fd", 10.0 * i + seed), seed=seed, key=f"{i}{seed}", **how)
        for i, how in enumerate(settings)
        for seed in (0, 1)
    ]
    data = prepare(rows)
    (column,) = data.columns
    found = {s.sampling: data.cell(column, s, 3.0).values for s in data.series("digits")}
    assert found == {
        "": (0.0, 1.0), "sde": (10.0, 11.0), "cosine grid": (20.0, 21.0),
        "random labels": (30.0, 31.0),
    }  # fmt: skip
