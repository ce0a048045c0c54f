from __future__ import annotations

import re
from unittest import mock

import pandas as pd
import pytest

from bench.report import build
from bench.report.build import write_report
from bench.report.document import Document, Form
from bench.report.numbers.comparison import FILES, compare, comparison_frames, cost_columns
from bench.report.numbers.frame import prepare
from bench.report.pages.markdown import markdown
from bench.report.pages.measures import measure_table
from bench.report.pages.tex import tex
from tests.bench.helpers import FIGURES
from tests.bench.report.factory import row, value
from tests.bench.report.rules_factory import sweep
from tests.bench.report.test_report import Page

SCALES = (1.0, 4.0, 13.0)
ODD = "<i>x</i>"


def rows(rule="apg"):
    return sweep("digits", rules=(rule, "cads"), scales=SCALES, methods=("edm", "igct", "ct"))


@pytest.fixture(scope="module", params=FIGURES)
def report(request, tmp_path_factory):
    with mock.patch.object(build, "draw", request.param):
        return write_report(rows(ODD), tmp_path_factory.mktemp("rules"))


def read(report, name):
    return pd.read_csv(report.page.parent / name)


def test_everything_is_written_and_linked(report):
    assert report.problems == ()
    assert set(FILES) <= {p.name for p in report.page.parent.iterdir()}
    links = Page(report.page.read_text(encoding="utf-8")).links
    assert {*FILES, "summary.csv", "provenance.csv"} <= set(links)
    for link in links:
        assert (report.page.parent / link).is_file()


def test_names_of_rules_are_escaped_everywhere(report):
    text = report.page.read_text(encoding="utf-8")
    page = Page(text)
    assert "i" not in page.tags
    assert any(ODD in word for word in page.words)
    assert "<i>" not in text
    for path in (report.markdown, report.page.parent / "tables-digits.md"):
        assert "<i>" not in path.read_text(encoding="utf-8")
    assert r"\textless{}i\textgreater{}" in report.tex.read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in report.figures)


def test_verdict_opens_the_data_set_on_the_page_and_in_the_tables(report):
    lists = re.findall(r'<ul class="verdict">(.*?)</ul>', report.page.read_text("utf-8"), re.S)
    found = [text for some in lists for text in re.findall(r"<li>(.*?)</li>", some)]
    matched, first, *more = found
    equal = "FD classifier @300 against CFG at the scale g* of equal Class accuracy @300: "
    assert matched.startswith(equal)
    assert first.startswith("FD classifier @300, every line at its best scale")
    assert 3 <= len(more) <= 5
    lines = report.markdown.read_text(encoding="utf-8").split("\n\n")
    opening = lines[lines.index("## digits") + 1]
    assert opening.startswith("* FD classifier @300 against CFG at the scale g\\* of equal")
    assert sum(line.startswith("* ") for line in lines) == len(found)


def test_rankings_follow_their_measures(report):
    text = (report.page.parent / "tables-digits.md").read_text(encoding="utf-8")
    assert "<details><summary>Ranking of lines: FD classifier @300 ↓</summary>" in text
    assert "Ranking of lines: Recall" not in text  # in ranking.csv only
    assert text.count("<details>") == text.count("</details>")
    assert "Ranking of lines: Saturation" not in text
    page = report.page.read_text(encoding="utf-8")
    assert len(re.findall(r"<details\b", page)) == page.count("</details>")


def test_tables_group_rules_below_their_method():
    data = prepare(rows())
    table = measure_table(data, next(c for c in data.columns if c.metric == "fd"))
    assert [(line.group, line.label) for line in table.lines] == [
        ("", "edm, 18 steps"),
        ("", "ct, 1 step"),
        ("", "igct, 1 step"),
        ("edm, 18 steps: guidance rules", "edm + apg, 18 steps"),
        ("edm, 18 steps: guidance rules", "edm + cads, 18 steps"),
        ("", "real vs. real (floor)"),
    ]
    document = Document("x", (), (table,))
    heading = "| **edm, 18 steps: guidance rules** | | | | | |"
    assert markdown(document, Form.DATASET).splitlines().count(heading) == 1
    text = tex(document)
    assert text.count(r"{\itshape edm, 18 steps: guidance rules}") == text.count("begin{tabular}")


def test_files_have_one_line_per_point(report):
    points = read(report, "pareto.csv")
    # edm and igct at three scales, two rules at two of their own, ct at one.
    assert points.groupby(["metric", "against"]).size().to_dict() == {
        ("fd", "nfe"): 11,
        ("fd", "seconds"): 11,
        ("precision", "recall"): 11,
    }
    assert points.on_front.any()
    assert not points.on_front.all()
    areas = read(report, "hypervolume.csv")
    assert areas["rank"].tolist() == [1, 2, 3, 4, 5]
    assert areas.hypervolume.is_monotonic_decreasing
    assert set(areas.scales) == {1, 3}
    best = read(report, "operating_points.csv")
    assert set(best.groupby("metric").size()) == {5}
    assert best.optimistic.sum() == (best.scales > 1).sum()
    ranks = read(report, "ranking.csv")
    assert set(ranks.by) == {"best", "mean"}
    leaders = ranks[ranks["rank"] == 1]
    assert leaders.behind_leader.isna().all()
    assert (ranks[ranks["rank"] > 1].p_holm <= 1).all()
    fd = ranks[(ranks.metric == "fd") & (ranks.by == "best")]
    known = best[best.metric == "fd"].set_index("line").value
    assert fd.set_index("line").value.to_dict() == known.to_dict()
    assert fd.value.is_monotonic_increasing


def test_hashes_are_written_once_per_row(report):
    values, origin = read(report, "summary.csv"), read(report, "provenance.csv")
    assert {"rule", "knobs_from", "nfe_weighted"} <= set(values)
    assert not [name for name in values if "hash" in name or name in ("checkpoint", "key")]
    assert origin.row.tolist() == sorted(set(values.row))
    assert len(origin) == len(rows())
    joined = values.merge(origin, on="row")
    assert len(joined) == len(values)
    edm = joined[(joined.rule == "cads") & (joined.metric == "fd")]
    assert set(edm.knobs) == {"cads.eta = 0.5"}
    assert set(edm.extractor_hashes) == {f"classifier = {'e' * 64}"}
    assert set(edm.provenance_torch) == {"2.6.0"}


def test_same_rows_give_the_same_files():
    one, two = (comparison_frames(compare(prepare(r))) for r in (rows(), rows()[::-1]))
    assert set(one) == set(FILES)
    for name in FILES:
        pd.testing.assert_frame_equal(one[name], two[name])


def test_single_line_has_no_comparison(tmp_path):
    found = [row("digits", "edm", g, value("fd", 2.0 + g)) for g in (1.0, 2.0)]
    report = write_report(found, tmp_path)
    assert not set(FILES) & {p.name for p in tmp_path.iterdir()}
    assert "verdict" not in re.sub(r"<style>.*</style>", "", report.page.read_text(), flags=re.S)
    assert {p.stem for p in report.figures} == {"digits-guidance"}


def test_distance_to_a_known_density_comes_first():
    found = [
        row("modes1d", method, g, value("fd", g), value("w1", g), value("precision", 0.5))
        for method in ("oracle", "edm")
        for g in (1.0, 3.0)
    ]
    data = prepare(found)
    assert [c.metric for c in cost_columns(data, "modes1d")] == ["w1"]
