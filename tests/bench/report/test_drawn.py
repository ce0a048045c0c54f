from __future__ import annotations

import json
import shutil

import pytest

from bench.cli.report import published_file
from bench.report import build, record
from bench.report.build import write_report
from bench.report.options import PaperOptions, ReportOptions
from bench.report.record import make_report
from bench.system import forks
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

    def draw(plan, kinds):
        names.append(plan.name)
        return real(plan, kinds)

    real = build.draw
    monkeypatch.setattr(forks, "MOST", 1)  # other processes would append to other lists
    monkeypatch.setattr(build, "draw", draw)
    return names


@pytest.fixture
def report(tmp_path, drawn):
    write_report(some_rows(), tmp_path / "report")
    assert len(drawn) > 2
    drawn.clear()
    return tmp_path / "report"


def test_unchanged_figures_are_kept(report, drawn):
    before = written(report)
    found = write_report(some_rows(), report)
    assert drawn == []
    assert set(found.figures) == set((report / "figures").iterdir())
    assert written(report) == before


def test_a_changed_row_redraws_only_the_figures_of_its_data_set(report, drawn, tmp_path):
    write_report(some_rows(3.0), report)
    assert drawn == ["digits-guidance"]
    fresh = tmp_path / "fresh"
    write_report(some_rows(3.0), fresh)
    assert written(report) == written(fresh)


def test_new_methods_elsewhere_change_the_colours_of_all(report, drawn):
    other = row("digits", "of-a-plugin", 1.0, value("fd", 1.0))
    write_report([*some_rows(), other], report)
    assert any(name.startswith("modes1d") for name in drawn)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_figure_is_drawn_again(report, drawn, damage):
    before = written(report)
    figure = report / "figures" / "digits-guidance.png"
    if damage == "gone":
        figure.unlink()
    else:
        figure.write_bytes(figure.read_bytes()[:-9])
    write_report(some_rows(), report)
    assert drawn == ["digits-guidance"]
    assert written(report) == before


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": {"files": 1}}', "[" * 100_000, "\0"])
def test_damaged_record_draws_all_figures_again(report, drawn, text):
    before = written(report)
    (report / "drawn.json").write_text(text)
    write_report(some_rows(), report)
    assert {f"{name}.png" for name in drawn} == {p.name for p in before if p.suffix == ".png"}
    assert written(report) == before


def test_report_that_was_stopped_continues_after_the_last_figure(report, drawn, monkeypatch):
    before = written(report)
    known = json.loads((report / "drawn.json").read_text())
    (report / "index.html").unlink()
    kept, *lost = sorted(name for name in known if name.startswith("figures/"))
    (report / "drawn.json").write_text(json.dumps({kept: known[kept]}))
    write_report(some_rows(), report)
    assert sorted(f"figures/{name}.png" for name in drawn) == lost
    assert written(report) == before


def test_figures_of_several_processes_are_those_of_one(report, monkeypatch):
    monkeypatch.setattr(forks, "MOST", 2)
    monkeypatch.setattr(forks.os, "sched_getaffinity", lambda _: {0, 1})
    write_report(some_rows(), report.with_name("shared"))
    assert written(report.with_name("shared")) == written(report)


@pytest.fixture
def calls(monkeypatch):
    """The number of rows of every report that was written."""
    counts = []
    real = write_report
    monkeypatch.setattr(
        build, "write_report", lambda rows, *a, **k: counts.append(len(rows)) or real(rows, *a, **k)
    )
    return counts


def test_unchanged_report_is_kept(report, calls):
    before = {path: path.stat().st_mtime_ns for path in report.rglob("*.*")}
    found = make_report(some_rows()[::-1], report)
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in report.rglob("*.*")} == before
    assert found == write_report(some_rows(), report)


@pytest.mark.parametrize("name", ["tables.md", "index.html", "figures/digits-guidance.png"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_report_is_written_again(report, calls, name, damage):
    before = written(report)
    path = report / name
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes() + b" ")
    make_report(some_rows(), report)
    assert calls == [len(some_rows())]
    assert written(report) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pdf": True},
        {"all_figures": True},
        {"note": {"suite": "a"}},
        {"paper": PaperOptions(columns=1)},
        "rows",
        "code",
    ],
    ids=str,
)
def test_report_of_something_else_is_written_again(report, calls, change, monkeypatch):
    if change == "code":
        monkeypatch.setattr(record, "code", lambda: "other code")
    rows = some_rows(3.0) if change == "rows" else some_rows()
    options = change if isinstance(change, dict) else {}
    make_report(rows, report, ReportOptions(**options))
    assert calls == [len(rows)]
    make_report(rows, report, ReportOptions(**options))
    assert calls == [len(rows)]


def test_report_with_a_failed_figure_is_written_again(report, calls, monkeypatch):
    monkeypatch.setattr(build, "draw", lambda plan, kinds: 1 / 0)
    assert len(make_report(some_rows(3.0), report).problems) == 1
    monkeypatch.undo()
    assert make_report(some_rows(3.0), report).problems == ()
    assert (report / "figures" / "digits-guidance.png").exists()


def test_changed_published_numbers_are_noticed(report, calls, tmp_path):
    source = published_file()
    copy = tmp_path / "published.csv"
    shutil.copy(source, copy)
    make_report(some_rows(), report, ReportOptions(published=copy))
    make_report(some_rows(), report, ReportOptions(published=source))  # the same content
    assert len(calls) == 1
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    make_report(some_rows(), report, ReportOptions(published=copy))
    assert len(calls) == 2


def test_pdf_is_written_on_request_and_not_left_behind(report, drawn):
    before = written(report)
    found = write_report(some_rows(), report, ReportOptions(pdf=True))
    assert {path.suffix for path in found.figures} == {".png", ".pdf"}
    assert 'digits-guidance.pdf">PDF' in found.page.read_text()
    drawn.clear()
    write_report(some_rows(), report, ReportOptions(pdf=True))
    assert drawn == []
    write_report(some_rows(), report)
    assert drawn == []
    assert written(report) == before
