from __future__ import annotations

import numpy as np
import pytest

from bench.report.build import write_report
from bench.report.numbers.frame import prepare
from bench.report.numbers.pairs import FIELDS, difference_frame, differences, headline_differences
from bench.report.pages.measures import difference_table, measure_table
from tests.bench.report.factory import row, value


def rows(common=1.0, **changes):
    """Three methods whose values share most of their noise: the second differs by little."""
    rng = np.random.default_rng(0)
    noise = common * rng.normal(size=20)

    def method(name, number, own):
        left = number + noise + own * rng.normal(size=20)
        measured = value("fd", number, se=9.0, se_method="jackknife", replicates=tuple(left))
        return row("digits", name, 1.0, measured, **changes)

    return [method("edm", 10.0, 0.01), method("igct", 10.1, 0.2), method("ct", 12.0, 0.01)]


def test_shared_noise_cancels_in_differences():
    data = prepare(rows())
    found = {d.series.method: d for d in differences(data, data.columns[0])}
    assert set(found) == {"igct", "ct"}
    assert {d.best.method for d in found.values()} == {"edm"}
    assert found["ct"].value == pytest.approx(2.0)
    # A common noise a hundred times as strong leaves the error of the difference as it is.
    louder = prepare(rows(common=100.0))
    same = {d.series.method: d for d in differences(louder, louder.columns[0])}
    assert same["ct"].se == pytest.approx(found["ct"].se, rel=1e-6)
    assert found["ct"].is_significant
    assert not found["igct"].is_significant


@pytest.mark.usefixtures("empty_figures")
def test_methods_not_significantly_behind_the_best_are_bold(tmp_path):
    data = prepare(rows())
    table = measure_table(data, data.columns[0])
    bold = {line.label: line.cells[2].bold for line in table.lines}
    assert bold == {"edm, 18 steps": True, "igct, 1 step": True, "ct, 1 step": False}
    assert any("not significant at 5%" in text for _, text in table.notes)
    less = difference_table(data, data.columns[0], differences(data, data.columns[0]))
    shown = {line.label: line.cells[0] for line in less.lines}
    assert shown["edm, 18 steps"].text == "best"
    assert (shown["ct, 1 step"].text[:2], shown["ct, 1 step"].marks) == ("+2", "*")
    assert shown["igct, 1 step"].marks == ""
    write_report(rows(), tmp_path)
    text = (tmp_path / "tables-digits.md").read_text(encoding="utf-8")
    assert text.count("<details><summary>Paired differences at the same seeds: FD") == 1
    assert text.count("<details>") == text.count("</details>")


def test_other_seeds_or_no_replicates_give_no_difference():
    other = [r.model_copy(update={"seed": 5}) for r in rows() if r.method == "ct"]
    kept = [r for r in rows() if r.method == "edm"]
    data = prepare(kept + other)
    assert differences(data, data.columns[0]) == ()
    table = measure_table(data, data.columns[0])
    assert [line.cells[2].bold for line in table.lines] == [True, False]
    assert headline_differences(data) == {}
    bare = prepare([row("digits", m, 1.0, value("fd", 1.0)) for m in ("edm", "ct")])
    assert headline_differences(bare) == {}


def test_method_that_diverged_at_some_seed_is_not_compared():
    lost = row("digits", "ct", 1.0, status="diverged", reason="NaN", seed=1)
    data = prepare([*rows(), lost])
    assert {d.series.method for d in differences(data, data.columns[0])} == {"igct"}


def test_file_has_one_line_per_difference():
    frame = difference_frame(headline_differences(prepare(rows())).items())
    assert tuple(frame.columns) == FIELDS
    assert frame["method"].tolist() == ["ct, 1 step", "igct, 1 step"]
    assert frame["significant"].tolist() == [True, False]
    assert ((frame["low"] + frame["high"]) / 2).to_numpy() == pytest.approx(frame["difference"])
    assert (frame["seeds"] == 1).all()


def test_measures_without_a_better_direction_are_not_compared():
    replicates = tuple(np.arange(20.0))
    measured = value("contrast", 1.0, replicates=replicates)
    data = prepare([row("digits", m, 1.0, measured) for m in ("edm", "ct")])
    assert differences(data, data.columns[0]) == ()
