from __future__ import annotations

import re
from html.parser import HTMLParser
from unittest import mock

import pandas as pd
import pytest

from bench.report import build, drawn
from bench.report.build import write_report
from bench.report.figures import drawings
from bench.report.options import ReportOptions
from bench.system.errors import UserError
from bench.system.files import write_text
from tests.bench.helpers import FIGURES
from tests.bench.report.factory import NO_GUIDANCE, digits, row, toy, value


class Page(HTMLParser):
    """Tags, text, ids and links of a page: to other files, and inside it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.inside, self.words, self.ids = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = [v for k, v in attrs if k in ("src", "href")]
        self.links += [link for link in found if not link.startswith("#")]
        self.inside += [link[1:] for link in found if link.startswith("#")]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_data(self, data):
        self.words.append(data)


def small():
    """A few rows with few figures."""
    return [r for r in toy() if r.guidance in (1.0, 4.0, 13.0) and r.method != "oracle"]


@pytest.fixture(scope="module", params=FIGURES)
def report(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    names = ("<script>alert(1)</script>", *(str(k) for k in range(1, 10)))
    odd = row("digits", "<script>x", 2.0, status="skip", reason="a < b & <script>")
    stale = row("digits", "edm", 1.0, value("fd", 9.0), created="2024-01-01T00:00:00Z")
    old = stale.model_copy(update={"checkpoint": "old", "key": "old"})
    rows = [*digits(names), odd, old]
    with mock.patch.object(build, "draw", request.param):
        return write_report(
            rows, out, ReportOptions(note={"suite": "demo <b>"}, pdf=True, all_figures=True)
        )


def test_everything_is_written(report):
    out = report.page.parent
    assert report.problems == ()
    assert {p.name for p in out.iterdir()} == {
        *("summary.csv", "provenance.csv", "tables.md", "tables.tex", "index.html", "figures"),
        *("drawn.json", "paper.md", "paper.tex", "tables-digits.md"),
        *("pareto.csv", "hypervolume.csv", "operating_points.csv", "ranking.csv"),
    }
    assert set(report.figures) == set((out / "figures").iterdir())
    stems = {p.stem for p in report.figures if p.suffix == ".png"}
    assert stems == {p.stem for p in report.figures if p.suffix == ".pdf"}
    assert {"digits-fd-classifier", "digits-samples-igct-1", "digits-samples-real"} <= stems
    assert "digits-precision-recall-classifier" in stems
    frame = pd.read_csv(report.summary)
    assert frame.columns[0] == "row"
    assert frame.columns[-1] == "reason"
    assert (frame["value"] == 0.0).any()
    assert 9.0 not in frame["value"].tolist()


def test_page_escapes_what_comes_from_rows(report):
    text = report.page.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert text.count("<script") == text.count("</script>") == 2
    assert "b" not in page.tags
    assert "a < b & <script>" in page.words
    assert "demo <b>" in page.words


def test_page_links_only_to_its_own_files(report):
    page = Page(report.page.read_text(encoding="utf-8"))
    assert page.links
    assert set(page.inside) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert not re.match(r"\w+:|/", link)
        assert (report.page.parent / link).is_file()


def test_page_gives_reasons_provenance_and_the_rows_left_out(report):
    page = Page(report.page.read_text(encoding="utf-8"))
    text = " ".join(page.words)
    assert "1 row of older checkpoints left out" in text
    assert NO_GUIDANCE in page.words
    assert "NaN at step 3 of 18" in page.words
    assert {"0123abc", "2.6.0", "e" * 64, "f" * 64, "d" * 64} <= set(page.words)
    assert f"digits-edm-s0-{'c' * 40}" in page.words
    assert "FD classifier @300 ↓" in page.words
    assert "1 row of older checkpoints left out" in report.markdown.read_text(encoding="utf-8")


def test_same_rows_give_the_same_bytes(tmp_path):
    one = write_report(small(), tmp_path / "one")
    two = write_report(small()[::-1], tmp_path / "two")
    first = [one.summary, one.markdown, one.tex, one.page, *one.figures]
    second = [two.summary, two.markdown, two.tex, two.page, *two.figures]
    assert [p.name for p in first] == [p.name for p in second]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_each_data_set_has_a_file_of_its_tables(tmp_path):
    two = [*small(), row("digits", "edm", 1.0, value("fd", 1.0))]
    report = write_report(two, tmp_path)
    text = report.markdown.read_text(encoding="utf-8")
    names = ("tables-digits.md", "tables-modes1d.md")
    for name, title in zip(names, ("FD classifier @300 ↓", "W1 to the exact"), strict=True):
        assert f"All tables: [{name}]({name})." in text
        assert f"### {title}" in (tmp_path / name).read_text(encoding="utf-8")
        assert f"### {title}" not in text
    # A file of a data set that is gone would look like part of this report.
    write_report(small(), tmp_path)
    assert [path.name for path in tmp_path.glob("tables-*.md")] == [names[1]]


@pytest.mark.usefixtures("empty_figures")
def test_further_figures_are_drawn_on_request(tmp_path):
    few = write_report(toy(), tmp_path)
    some = {path.stem for path in few.figures}
    assert some == {
        f"modes1d-{name}" for name in ("guidance", "modes", "front-w1-cost", "yardstick")
    }
    every = write_report(toy(), tmp_path, ReportOptions(all_figures=True))
    assert {path.stem for path in every.figures} == some | {"modes1d-densities", "modes1d-w1"}
    write_report(toy(), tmp_path)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == some


def test_failed_figure_costs_only_itself(tmp_path, monkeypatch):
    others = {"modes1d-modes", "modes1d-front-w1-cost"}
    whole = write_report(small(), tmp_path)
    assert {p.stem for p in whole.figures} == others | {"modes1d-guidance"}

    def broken(*args):
        raise RuntimeError("no <ink>")

    monkeypatch.setitem(drawings.DRAWINGS, "guidance_panels", broken)
    monkeypatch.setattr(drawn, "code", lambda: "other code, so that all figures are drawn")
    part = write_report(small(), tmp_path)
    assert part.problems == ("Figure modes1d-guidance failed: RuntimeError: no <ink>",)
    assert {p.stem for p in part.figures} == others
    assert part.summary.read_bytes() == whole.summary.read_bytes()
    words = Page(part.page.read_text(encoding="utf-8")).words
    assert any("no <ink>" in word for word in words)
    # The figure of the report before would pass for one of this report.
    assert not (tmp_path / "figures" / "modes1d-guidance.png").exists()


def test_nothing_is_written_when_rows_are_refused(tmp_path):
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0)),
        row("digits", "igct", 1.0, value("fd", 1.0, version=2)),
    ]
    with pytest.raises(UserError, match="metric version is 1"):
        write_report(rows, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("empty_figures")
def test_differences_and_reasons_are_reported(tmp_path):
    lacking = {"kid": "kid needs a < b"}
    rows = [
        row("digits", m, 1.0, value("fd", x, se=0.1, replicates=(x, x + own)), unmeasured=lacking)
        for m, x, own in (("edm", 1.0, 0.01), ("ct", 2.0, 0.02))
    ]
    report = write_report(rows, tmp_path)
    page = Page(report.page.read_text(encoding="utf-8"))
    assert {"details", "summary", "small"} <= set(page.tags)
    assert "differences.csv" in page.links
    assert "Not measured on digits: kid needs a < b." in page.words
    assert (
        "Not measured on digits: kid needs a &lt; b." in (tmp_path / "tables-digits.md").read_text()
    )
    frame = pd.read_csv(tmp_path / "differences.csv")
    assert frame[["method", "best", "significant"]].to_numpy().tolist() == [
        ["ct, 1 step", "edm, 18 steps", True]
    ]
    write_report(small(), tmp_path)
    assert not (tmp_path / "differences.csv").exists()


def test_data_set_without_a_value_is_still_reported(tmp_path):
    rows = [row("digits", "ct", 2.0, status="skip", reason=NO_GUIDANCE)]
    report = write_report(rows, tmp_path)
    words = Page(report.page.read_text(encoding="utf-8")).words
    assert "Nothing was measured; the reasons are below." in words
    assert NO_GUIDANCE in words
    assert NO_GUIDANCE in report.markdown.read_text(encoding="utf-8")
    assert list(tmp_path.glob("tables-*.md")) == []
    assert report.figures == ()


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.txt", "old")

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
