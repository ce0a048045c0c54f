from __future__ import annotations

import re

import pytest

from bench.report.figures.figures import plan_figures
from bench.report.numbers.frame import prepare
from bench.report.numbers.ranking import make_ranking
from bench.report.numbers.summary import summary
from bench.report.pages.contents import left_out
from bench.system.errors import UserError
from tests.bench.report.factory import NO_GUIDANCE, demo, digits, row, value


def test_summary_has_one_line_per_value_or_cell_without_values():
    frame = summary(prepare(demo()).rows)
    assert len(frame) == sum(len(r.values) or 1 for r in demo())
    lost = frame[(frame.dataset == "digits") & (frame.method == "ct") & (frame.guidance == 4.0)]
    assert lost[["status", "reason"]].to_numpy().tolist() == [["skip", NO_GUIDANCE]]
    assert lost[["metric", "value"]].isna().all(axis=None)
    zero = frame[(frame.metric == "recall") & (frame.method == "edm") & (frame.guidance == 13.0)]
    assert zero["value"].tolist() == [0.0]
    assert zero["n"].tolist() == [300]


def test_summary_states_errors_and_intervals():
    rows = [
        row("digits", "edm", 1.0, value("fd", 3.0, se=0.5, se_method="jackknife")),
        row("digits", "edm", 2.0, value("fd", 1.0, se=0.0, se_method="W", low=0.9, high=1.0)),
        row("digits", "edm", 4.0, value("fd", 2.0)),
    ]
    frame = summary(prepare(rows).rows)
    assert frame["se"].tolist()[:2] == [0.5, 0.0]
    assert frame["se_method"].tolist() == ["jackknife", "W", ""]
    assert frame["low"].tolist()[:2] == pytest.approx([3 - 1.96 * 0.5, 0.9], abs=1e-4)
    assert frame["high"].tolist()[:2] == pytest.approx([3 + 1.96 * 0.5, 1.0], abs=1e-4)
    assert frame.loc[2, ["se", "low", "high"]].isna().all()
    assert "replicates" not in frame.columns


def test_summary_skips_the_values_of_diverged_cells():
    rows = [row("digits", "edm", 2.0, value("fd", 1.0), status="diverged", reason="NaN")]
    frame = summary(prepare(rows).rows)
    assert frame["value"].isna().all()
    assert frame["status"].tolist() == ["diverged"]


@pytest.mark.parametrize(
    ("changes", "in_value", "says"),
    [
        ({"extractor_hash": "0" * 64}, True, "extractor hash is"),
        ({"version": 2}, True, "metric version is 1 for edm .* and 2 for igct"),
        (
            {"signature": "b" * 64},
            True,
            "settings of the measure is 'a{12}' for edm .* and 'b{12}'",
        ),
        ({"reference_hash": "0" * 64}, False, "reference hash is"),
        ({"reference": "train"}, False, "reference set is 'test' for edm .* and 'train' for igct"),
        ({"data_hash": "0" * 64}, False, "data hash is"),
    ],
)
def test_incomparable_rows_are_refused(changes, in_value, says):
    measured = value("fd", 2.0, **{"signature": "a" * 64, **(changes if in_value else {})})
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0, signature="a" * 64)),
        row("digits", "igct", 1.0, measured, **({} if in_value else changes)),
    ]
    with pytest.raises(UserError, match=says) as caught:
        prepare(rows)
    assert "'FD classifier @300' of digits" in str(caught.value)
    assert len(re.findall(r"\.(?:\s|$)", str(caught.value))) == 1


def test_another_number_of_samples_is_another_column_with_its_own_floor():
    rows = [
        row("digits", "real", 1.0, value("fd", 9.0, n=200), n=200),
        row("digits", "edm", 1.0, value("fd", 1.0)),
        row("digits", "edm", 1.0, value("fd", 5.0, n=200), n=200),
        row("digits", "ct", 2.0, status="skip", reason="no", n=200),
    ]
    data = prepare(rows)
    assert [c.title for c in data.columns] == ["FD classifier @300", "FD classifier @200"]
    many, few = data.columns
    edm, ct = data.series("digits")
    assert data.cell(few, edm, 1.0).values == (5.0,)
    assert data.cell(many, edm, 1.0).values == (1.0,)
    assert [len(data.cell(c, ct, 2.0).troubles) for c in (few, many)] == [1, 0]
    assert data.floor(few).values == (9.0,)
    assert data.floor(many).values == ()
    names = [plan.name for plan in plan_figures(data, ())]
    assert {"digits-fd-classifier-n200", "digits-fd-classifier-n300"} <= set(names)


def test_measures_stand_in_the_order_people_ask_for_them():
    names = ("saturation", "zeal", "fd_inf", "class_accuracy", "coverage_k3", "density_k3", "kid")
    names += ("recall_k3", "precision_k3", "fd_corrected", "fd")
    rows = [row("digits", "edm", 1.0, *(value(name, 1.0) for name in names))]
    order = [column.metric for column in prepare(rows).columns]
    assert order == [
        *("fd", "fd_corrected", "kid", "precision_k3", "recall_k3", "density_k3", "coverage_k3"),
        *("class_accuracy", "fd_inf", "saturation", "zeal"),
    ]


def test_another_extractor_or_data_set_is_another_column():
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0), value("fd", 3.0, extractor="inception", n=50)),
        row("other", "edm", 1.0, value("fd", 1.0, n=20)),
    ]
    titles = [(c.dataset, c.title) for c in prepare(rows).columns]
    assert titles == [
        ("digits", "FD classifier @300"),
        ("digits", "FD inception @50"),
        ("other", "FD classifier @20"),
    ]


def test_real_samples_of_two_experiments_count_once():
    floor = [
        row("digits", "real", 1.0, value("fd", 0.5, se=0.1), steps=0, experiment=name)
        for name in ("first", "second")
    ]
    lines = [
        row("digits", "edm", 1.0, value("fd", 2.0 + i, se=0.3), experiment=f.experiment)
        for i, f in enumerate(floor)
    ]
    data = prepare([*floor, *lines])
    assert data.floor(data.columns[0]).values == (0.5,)
    cell = data.cell(data.columns[0], data.series_of(floor[0]), 1.0)
    assert (cell.mean, cell.estimate.se) == (0.5, 0.1)
    methods = {s.label: data.cell(data.columns[0], s, 1.0).values for s in data.series("digits")}
    assert methods == {
        "edm [first/digits-edm-s0], 18 steps": (2.0,),
        "edm [second/digits-edm-s0], 18 steps": (3.0,),
    }


def test_floor_of_another_n_is_left_out_with_a_note():
    rows = [
        row("digits", "real", 1.0, value("fd", 1.0, n=100)),
        row("digits", "edm", 1.0, value("fd", 2.0)),
    ]
    data = prepare(rows)
    assert data.floor(data.columns[0]).values == ()
    assert "n is 300 for edm" in data.notes[data.columns[0]]
    assert "100 for real" in data.notes[data.columns[0]]


def test_rows_of_older_checkpoints_are_left_out():
    late = "2025-02-01T00:00:00Z"
    rows = [
        *digits(),
        row("digits", "edm", 1.0, value("fd", 77.0), checkpoint="new", created=late),
    ]
    data = prepare(rows)
    kept = [r for r in data.rows if r.method == "edm"]
    assert [r.checkpoint for r in kept] == ["new"]
    assert data.stale == sum(r.method == "edm" for r in digits())
    assert {r.method for r in data.rows} == {"edm", "ct", "igct", "real"}


def test_old_values_without_a_signature_are_accepted():
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0, signature="a" * 64)),
        row("digits", "igct", 1.0, value("fd", 2.0, signature="")),
    ]
    assert len(prepare(rows).columns) == 1


def test_line_has_rows_of_one_code():
    def made(g, day, code, rule="", rule_code=""):
        return row(
            "digits", "edm", g, value("fd", g), key=f"{g}{day}{rule}", code=code, rule=rule,
            rule_code=rule_code, created=f"2025-02-0{day}T00:00:00Z",
        )  # fmt: skip

    other = row("digits", "igct", 2.0, value("fd", 9.0), code="its own", key="igct")
    rows = [
        made(1.0, 1, "old"), made(2.0, 1, "old"), made(2.0, 1, "old", "apg", "x"),
        made(2.0, 2, "new"), made(3.0, 2, "new", "apg", "x"), made(4.0, 3, "new", "apg", "y"),
        other,
    ]  # fmt: skip
    data = prepare(rows)
    assert {r.key for r in data.rows} == {"2.02", "4.03apg", "igct"}
    assert (data.stale, data.outdated, data.superseded) == (0, 4, 0)
    assert "4 rows of older code left out" in " ".join(left_out(data))
    before = [r.model_copy(update={"code": "", "rule_code": ""}) for r in rows]
    assert prepare(before).outdated == 0


def test_cells_skipped_before_training_are_not_stale():
    skip = row("digits", "ct", 2.0, status="skip", reason=NO_GUIDANCE, checkpoint="")
    later = row("digits", "ct", 1.0, value("fd", 1.0), created="2025-02-01T00:00:00+00:00")
    assert len(prepare([later, skip]).rows) == 2


def test_cell_that_was_run_again_is_not_a_second_seed():
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0), key="a"),
        row("digits", "edm", 1.0, value("fd", 2.0), key="b", created="2025-02-01T00:00:00Z"),
        row("digits", "edm", 1.0, status="failed", key="c", created="2025-03-01T00:00:00Z"),
    ]
    data = prepare(rows)
    assert [r.key for r in data.rows] == ["b"]
    assert data.superseded == 2


def test_seeds_are_averaged_but_configurations_are_not():
    def run(name, seed, number):
        return row("digits", "edm", 1.0, value("fd", number), run=name, train_seed=seed)

    seeds = prepare([run("edm-s0", 0, 1.0), run("edm-s1", 1, 3.0)])
    (series,) = seeds.series("digits")
    cell = seeds.cell(seeds.columns[0], series, 1.0)
    assert (cell.mean, cell.estimate.se) == (2.0, pytest.approx(1.0))
    variants = prepare([run("small", 0, 1.0), run("large", 0, 3.0)])
    labels = [s.label for s in variants.series("digits")]
    assert labels == ["edm [large], 18 steps", "edm [small], 18 steps"]


def test_runs_of_presets_are_named_by_them():
    names = ("digits-edm-s0", "digits-big-edm-s0", "edm-s0", "other-edm-s0", "digits-edm-s0-weak")
    rows = [row("digits", "edm", 1.0, value("fd", 1.0), run=name) for name in names]
    assert [s.run for s in prepare(rows).series("digits")] == sorted(("", "big", *names[2:]))
    assert prepare(rows).series("digits")[0].label == "edm, 18 steps"


def test_no_rows_raise_an_error_with_advice():
    with pytest.raises(UserError, match="no rows"):
        prepare([])


def test_two_runs_of_one_checkpoint_are_two_lines():
    first = next(r for r in demo() if r.status == "ok" and r.checkpoint)
    twin = first.model_copy(update={"run": "twin"})
    data = prepare([first, twin])
    assert {row.run for row in data.rows} == {first.run, "twin"}


def _ruled(g, number, knobs_from="default", **knobs):
    return row(
        "digits", "edm", g, value("fd", number),
        rule="apg", knobs_from=knobs_from, knobs={f"apg.{k}": v for k, v in knobs.items()},
        created=f"2026-01-0{1 + int(number)}T00:00:00+00:00", key=f"apg {knobs_from} {knobs}",
    )  # fmt: skip


def test_tuned_default_and_chosen_settings_of_a_rule_are_separate_lines():
    rows = [
        row("digits", "edm", 1.0, value("fd", 0.0)),
        _ruled(4.0, 1.0, eta=0.0),
        _ruled(4.0, 2.0, "tuned", eta=0.3),
        _ruled(4.0, 3.0, "tuned", eta=0.4),
        _ruled(4.0, 4.0, "suite", eta=0.5),
    ]
    data = prepare(rows)
    found = {s.rule: data.cell(data.columns[0], s, 4.0).values for s in data.series("digits")}
    assert found == {
        "": (),
        "apg": (1.0,),
        "apg (tuned)": (3.0,),
        "apg (eta=0.5)": (4.0,),
    }
    one = prepare([row("digits", "edm", 1.0, value("fd", 0.0)), rows[3]])
    assert [s.rule for s in one.series("digits")] == ["", "apg"]


def test_unusable_rule_does_not_get_the_rows_without_guidance():
    def cell(g, rule=""):
        return row("digits", "edm", g, value("fd", g, se=0.1), rule=rule, key=f"{rule}{g}")

    refused = {"status": "skip", "reason": "the network has no attention", "key": "pag3.0"}
    rows = [cell(1.0), cell(3.0), cell(3.0, "apg")]
    rows.append(row("digits", "edm", 3.0, rule="pag", **refused))
    data = prepare(rows)
    (column,) = data.columns
    lines = {s.rule: s for s in data.series("digits")}
    assert data.cell(column, lines["apg"], 1.0).mean == 1.0
    assert not data.cell(column, lines["pag"], 1.0).found
    ranking = make_ranking(data, column)
    assert {p.series.rule for p in ranking.best} == {"", "apg"}
