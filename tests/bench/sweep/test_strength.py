"""Strength, duration, dose and share across in the rows of a sweep."""

import json
import textwrap
from unittest import mock

import pytest

from bench.experiment.rows import read_rows
from methods.rules.meter import Stopwatch
from tests.bench.helpers import bench, rows_of

NAMES = ("strength", "duration", "dose", "across")
ALL = [part for name in NAMES for part in ("--metric", name)]


def value(row, metric):
    (found,) = (v for v in row.values if v.metric == metric)
    return found


def test_rows_have_the_strength_and_a_reason_for_learnt_guidance(trained):
    options = ("-g", "1,3", "-n", "24", "--rule", "cfg,interval,icg", "--results", trained)
    ran = bench("sweep", *options, *ALL, "--metric", "w1", "--batch", "10")
    assert ran.code == 0, ran.err
    rows = {(r.rule, r.guidance): r for r in rows_of(trained, "edm")}
    for name, off in zip(NAMES, (1.0, 0.0, 1.0, 0.0), strict=True):
        assert value(rows["", 1.0], name).value == off
    assert value(rows["", 3.0], "strength").value == pytest.approx(3.0, abs=1e-6)
    # At low noise the outputs of this small network differ by rounding only, where nothing acts.
    assert value(rows["", 3.0], "dose").value == pytest.approx(3.0, rel=1e-3)
    interval = rows["interval", 3.0]
    assert value(interval, "strength").value == pytest.approx(3.0, abs=1e-6)
    assert 0 < value(interval, "duration").value < 0.5
    assert value(interval, "duration").se > 0
    # Evaluations for the meter alone are not counted.
    assert rows["icg", 3.0].nfe == 2 * rows["", 1.0].nfe
    assert interval.nfe == rows["", 1.0].nfe + 8
    for method in ("igct", "ct"):
        for row in (r for r in rows_of(trained, method) if r.status == "ok"):
            assert {v.metric for v in row.values} == {"w1"}
            assert set(row.unmeasured) == set(NAMES)
    (learnt, *_) = rows_of(trained, "igct")
    assert "guidance is learnt in training" in learnt.unmeasured["strength"]
    before = {path: path.read_bytes() for path in (trained / "default/cells").glob("*/*.json")}
    again = bench("sweep", *options, *ALL, "--metric", "w1")
    assert again.code == 0, again.err
    assert before == {path: path.read_bytes() for path in before}  # nothing is computed again


def test_rule_of_a_plugin_is_metered(trained, tmp_path):
    path = tmp_path / "half.py"
    path.write_text(
        textwrap.dedent("""\
        from methods.rules import CFG, register_rule

        @register_rule
        class Half(CFG):
            name = "half"

            def weigh(self, g, d_cond, d_ref, call):
                return 1 + (g - 1) / 2
        """)
    )
    options = ("-m", "edm", "-g", "5", "-n", "12", "--rule", "half", "--results", trained)
    ran = bench("sweep", "--plugin", path, *options, *ALL)
    assert ran.code == 0, ran.err
    (row,) = rows_of(trained, "edm")
    assert value(row, "strength").value == pytest.approx(3.0, abs=1e-6)


def test_time_of_the_meter_is_no_time_of_sampling(trained):
    options = ("-m", "edm", "-g", "3", "-n", "12", "--metric", "strength", "--results", trained)
    with mock.patch.object(Stopwatch, "seconds", 1e6):
        assert bench("sweep", *options).code == 0
    (row,) = rows_of(trained, "edm")
    assert row.seconds_per_image == 0


def test_rows_hold_the_evaluations_that_outputs_decided(trained, tmp_path):
    path = tmp_path / "stops.py"
    path.write_text(
        textwrap.dedent("""\
        import torch
        from methods.rules import CFG, register_rule

        @register_rule
        class Stops(CFG):
            name = "stops"
            data_dependent = True

            def reference(self, call):
                d_ref = call.cond.clone()
                rows = (call.cond.flatten(1).sum(1) > 0) | call.dry
                if rows.any():
                    d_ref[rows] = call.part(rows).null()
                return d_ref
        """)
    )
    options = ("-m", "edm", "-g", "3", "-n", "40", "--rule", "cfg,stops", "--results", trained)
    ran = bench("sweep", "--plugin", path, *options, "--metric", "strength")
    assert ran.code == 0, ran.err
    rows = {r.rule: r for r in rows_of(trained, "edm")}
    assert rows["stops"].nfe == round(rows["stops"].nfe_weighted)
    assert 36 <= rows["stops"].nfe_weighted < rows[""].nfe_weighted == 70


def test_images_have_no_strength(tmp_path):
    ran = bench("evaluate", "digits:train", "-r", "digits", "--metric", "strength")
    assert ran.code == 2
    assert "measured while bench sweep samples" in ran.err


def test_strength_is_in_the_tables_of_a_report(trained, empty_figures):
    options = ("-m", "edm", "-g", "1,3", "-n", "24", "--results", trained)
    assert bench("sweep", *options, *ALL, "--metric", "w1").code == 0
    ran = bench("report", "--results", trained)
    assert ran.code == 0, ran.err
    pages = "".join(p.read_text() for p in (trained / "default/report").glob("tables*.md"))
    assert "Strength" in pages
    assert "Dose" in pages
    rows = read_rows(trained / "default/cells")
    assert all(json.loads(r.model_dump_json())["unmeasured"] == {} for r in rows)
