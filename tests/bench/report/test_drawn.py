from __future__ import annotations

import json

import pytest

from bench.report import build
from bench.report.build import write_report
from tests.bench.report.factory import row, toy, value


def some_rows(fd=2.0):
    """Rows of two data sets, which differ in one value of the digits."""
    rows = [r for r in toy() if r.guidance in (1.0, 4.0) and r.method == "edm"]
    return [
        *rows,
        row("digits", "edm", 1.0, value("fd", 1.0)),
        row("digits", "edm", 2.0, value("fd", fd)),
    ]


def written(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture
def drawn(monkeypatch):
    """The names of the figures drawn since they were last cleared."""
    names = []

    def draw(plan, *args):
        names.append(plan.name)
        return real(plan, *args)

    real = build.draw
    monkeypatch.setattr(build, "draw", draw)
    return names


@pytest.fixture
def report(tmp_path, drawn):
    write_report(some_rows(), tmp_path / "report", published=None)
    assert len(drawn) > 2
    drawn.clear()
    return tmp_path / "report"


def test_unchanged_figures_are_kept(report, drawn):
    before = written(report)
    found = write_report(some_rows(), report, published=None)
    assert drawn == []
    assert set(found.figures) == set((report / "figures").iterdir())
    assert written(report) == before


def test_a_changed_row_redraws_only_the_figures_of_its_data_set(report, drawn, tmp_path):
    write_report(some_rows(3.0), report, published=None)
    assert drawn == ["digits-fd-classifier"]
    fresh = tmp_path / "fresh"
    write_report(some_rows(3.0), fresh, published=None)
    assert written(report) == written(fresh)


def test_new_methods_elsewhere_change_the_colours_of_all(report, drawn):
    other = row("digits", "of-a-plugin", 1.0, value("fd", 1.0))
    write_report([*some_rows(), other], report, published=None)
    assert any(name.startswith("modes1d") for name in drawn)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_figure_is_drawn_again(report, drawn, damage):
    before = written(report)
    figure = report / "figures" / "digits-fd-classifier.png"
    if damage == "gone":
        figure.unlink()
    else:
        figure.write_bytes(figure.read_bytes()[:-9])
    write_report(some_rows(), report, published=None)
    assert drawn == ["digits-fd-classifier"]
    assert written(report) == before


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": {"files": 1}}', "[" * 100_000, "\0"])
def test_damaged_record_draws_all_figures_again(report, drawn, text):
    before = written(report)
    (report / "drawn.json").write_text(text)
    write_report(some_rows(), report, published=None)
    assert len(drawn) == len(json.loads(before[next(p for p in before if p.name == "drawn.json")]))
    assert written(report) == before


def test_report_that_was_stopped_continues_after_the_last_figure(report, drawn, monkeypatch):
    before = written(report)
    record = json.loads((report / "drawn.json").read_text())
    (report / "index.html").unlink()
    kept, *lost = sorted(record)
    (report / "drawn.json").write_text(json.dumps({kept: record[kept]}))
    write_report(some_rows(), report, published=None)
    assert sorted(drawn) == lost
    assert written(report) == before


def test_pdf_is_written_on_request_and_not_left_behind(report, drawn):
    before = written(report)
    found = write_report(some_rows(), report, published=None, pdf=True)
    assert {path.suffix for path in found.figures} == {".png", ".pdf"}
    assert 'fd-classifier.pdf">PDF' in found.page.read_text()
    drawn.clear()
    write_report(some_rows(), report, published=None, pdf=True)
    assert drawn == []
    write_report(some_rows(), report, published=None)
    assert drawn == []
    assert written(report) == before
