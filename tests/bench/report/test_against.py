from __future__ import annotations

import pandas as pd
import pytest

from bench.experiment.rows import write_row
from bench.report.against import write_against
from bench.report.numbers.against import compare_experiments
from bench.report.numbers.frame import prepare
from bench.system.errors import UserError
from tests.bench.helpers import bench
from tests.bench.report.factory import digits, row, value
from tests.bench.report.test_ranking import rows
from tests.bench.report.test_report import Page

BEFORE = {"edm": [3.0, 9.0], "igct": [5.0, 5.0], "ct": [8.0]}
AFTER = {"edm": [3.0, 6.0], "igct": [5.0, 5.4], "guided-cd": [4.0]}


def changes(ours, theirs):
    found = compare_experiments(prepare(ours), prepare(theirs))
    return {
        (change.series.method, change.guidance): change
        for some in found.changes.values()
        for change in some
    }


def test_cells_are_paired_where_seeds_are_shared():
    found = changes(rows(AFTER), rows(BEFORE))
    assert list(found) == [("edm", 1.0), ("edm", 2.0), ("igct", 1.0), ("igct", 2.0)]
    better = found["edm", 2.0]
    assert better.less.paired
    assert better.value == pytest.approx(-3.0)
    # The replicates of both share their noise, of error 4; the difference is far below that.
    assert better.less.se < 0.1
    assert better.is_significant
    assert found["edm", 1.0].is_same
    assert not found["edm", 1.0].is_significant


def test_other_seeds_are_compared_as_independent():
    found = changes(rows(AFTER, seeds=(1,)), rows(BEFORE))
    assert not found["edm", 2.0].less.paired
    assert found["edm", 2.0].less.se == pytest.approx(2**0.5)
    assert found["edm", 2.0].p > 0.05


def test_common_seeds_are_used_where_one_has_more():
    found = changes(rows(AFTER, seeds=(0, 1)), rows(BEFORE))
    assert found["edm", 2.0].less.paired
    assert found["edm", 2.0].value == pytest.approx(-3.0)


def test_page_states_what_changed(tmp_path):
    path = write_against(rows(AFTER), rows(BEFORE), tmp_path, ("after", "before"))
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.words)
    assert path.name == "against-before.html"
    assert "after against before" in page.words
    assert (
        "FD classifier @300: of 4 cells that both have, 2 have the same value; 1 significantly "
        "better and 1 significantly worse in after. The largest such difference is at g = 2 of "
        "“edm, 18 steps”: 6 instead of 9."
    ) in text
    assert "Only after has “guided-cd, 4 steps”." in text
    assert "Only before has “ct, 1 step”." in text
    assert page.links == ["against-before.csv"]
    frame = pd.read_csv(tmp_path / "against-before.csv")
    assert frame[["value", "other"]].to_numpy().tolist() == [
        *([3.0, 3.0], [6.0, 9.0], [5.0, 5.0], [5.4, 5.0]),
    ]
    tables = (tmp_path / "against-before.md").read_text(encoding="utf-8")
    assert "| igct, 1 step | = | +0.4" in tables


def test_measures_that_differ_in_a_fact_are_skipped_with_the_reason(tmp_path):
    ours = [row("digits", "edm", 1.0, value("fd", 3.0), value("recall", 0.5))]
    theirs = [row("digits", "edm", 1.0, value("fd", 3.0, version=2), value("recall", 0.6))]
    page = write_against(ours, theirs, tmp_path, ("a", "b")).read_text(encoding="utf-8")
    assert "FD classifier @300 cannot be compared: metric version is 1 for edm" in page
    assert "Recall classifier @300: of 1 cell that both have, 0 have the same value" in page


def test_experiments_without_a_common_cell_are_refused(tmp_path):
    with pytest.raises(UserError, match="a and b have no measured cell in common"):
        write_against(rows(AFTER), [row("toy", "edm", 1.0, value("w1", 1.0))], tmp_path, ("a", "b"))
    assert list(tmp_path.iterdir()) == []


def test_command_compares_two_experiments(tmp_path):
    for name in ("before", "default"):
        for i, made in enumerate(digits()):
            made = made.model_copy(update={"key": f"{i:024d}"})
            write_row(tmp_path / name / "cells", made)
    for against in ("before", tmp_path / "before"):
        ran = bench("report", "--results", tmp_path, "--against", against)
        assert ran.code == 0, ran.err
        assert "against-before.html" in ran.out
    page = tmp_path / "default" / "report" / "against-before.html"
    assert "have the same value, and none differs significantly" in page.read_text("utf-8")
    ran = bench("report", "--results", tmp_path, "--against", "nothing")
    assert ran.code == 2
    assert "There is no experiment 'nothing'" in ran.err
