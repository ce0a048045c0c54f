"""What rows say of their metrics decides how a report shows them, plugin or not."""

import json

import pytest

from bench.experiment.rows import Row
from bench.report.figures.curves import metric_curve
from bench.report.figures.figures import plan_comparison
from bench.report.figures.style import look
from bench.report.numbers.comparison import cost_columns
from bench.report.numbers.frame import prepare
from bench.report.numbers.pairs import headline_differences
from bench.report.numbers.pareto import precision_pairs
from bench.report.pages.measures import measure_table
from metrics import METRICS
from metrics.about import About
from tests.bench.report.factory import row, value

NOVEL = About(
    order=0, standing="headline", lead=3, low=0.0, scale="log", ratios=True, minimum=True,
    error_of="both",
)  # fmt: skip
TRUE = About(order=11, standing="headline", low=0.0, high=1.0, against="broad")


def rows(novel=NOVEL, true=TRUE):
    """Two methods by metrics that no one registered; `novel` spans less than a decade."""
    found = []
    for method, worse in (("edm", 0.0), ("igct", 1.0)):
        for g in (1.0, 2.0, 4.0):
            for seed in range(3):
                number = 2.0 + worse + 0.1 * g + 0.01 * seed
                some = {"se": 0.02, "se_method": "jackknife"}
                some["replicates"] = tuple(number + 0.01 * i for i in range(20))
                values = (
                    value("fd", 9.0 + number),
                    value("broad", 1 / number, direction="higher"),
                    value("true", 1 / (1 + number), direction="higher", about=true),
                    value("novel", number, label="Novel", direction="lower", about=novel, **some),
                )
                found.append(row("digits", method, g, *values, seed=seed, run=method))
    return found


def column_of(data, metric):
    (column,) = [c for c in data.columns if c.metric == metric]
    return column


def scale_of(data, metric):
    with look():
        return metric_curve(data, column_of(data, metric)).axes[0].get_yscale()


def test_metric_of_a_plugin_is_ordered_compared_and_drawn_by_its_facts():
    assert "novel" not in METRICS
    data = prepare(rows())
    assert [c.metric for c in data.columns] == ["novel", "fd", "true", "broad"]
    assert [c.metric for c in cost_columns(data, "digits")] == ["novel"]
    assert {c.metric for c in headline_differences(data)} == {"novel"}
    ((true, broad),) = precision_pairs(data, "digits")
    assert (true.metric, broad.metric) == ("true", "broad")
    assert scale_of(data, "novel") == "log"
    plans = [plan.name for plan in plan_comparison(data, ["digits"])]
    assert plans == ["digits-front-true-broad", "digits-front-novel-cost"]


def test_metric_of_a_plugin_is_described_by_its_facts():
    data = prepare([r for r in rows() if r.seed == 0])
    notes = [text for _, text in measure_table(data, column_of(data, "novel")).notes]
    said = (
        "± of a single run is its standard error (jackknife), counting the sampling of both sets."
    )
    assert said in notes
    several = measure_table(prepare(rows()), column_of(prepare(rows()), "novel"))
    assert any(line.label.endswith("min of 3 seeds") for line in several.lines)


def test_unknown_metric_without_facts_comes_last():
    data = prepare(rows(novel=None, true=None))
    assert [c.metric for c in data.columns] == ["fd", "broad", "novel", "true"]
    assert column_of(data, "novel").about == About()
    assert precision_pairs(data, "digits") == []
    assert headline_differences(data) == {}
    assert scale_of(data, "novel") == "linear"


def test_newest_row_that_states_facts_decides():
    def dated(method, g, day, about):
        created = f"2025-01-0{day}T00:00:00"
        return row("digits", method, g, value("novel", 1.0, about=about), created=created)

    found = [
        dated("edm", 1.0, 1, None),
        dated("edm", 2.0, 2, TRUE),
        dated("igct", 1.0, 3, NOVEL),
        dated("igct", 2.0, 4, None),
    ]
    assert [c.about for c in prepare(found).columns] == [NOVEL]


@pytest.mark.parametrize(
    "metric", ["fd", "precision_k3", "w1", "saturation", "precision_k5_strict"]
)
def test_old_rows_without_facts_use_the_registered_facts(metric):
    old = json.loads(row("digits", "edm", 1.0, value(metric, 0.5)).model_dump_json())
    for some in old["values"]:
        del some["about"]
    data = prepare([Row.model_validate(old)])
    assert data.columns[0].about == METRICS[metric].about


@pytest.mark.parametrize(
    ("metric", "against"), [("precision", "recall"), ("precision_k7", "recall_k7")]
)
def test_old_precision_is_paired_with_recall_of_the_same_k(metric, against):
    data = prepare([row("digits", "edm", 1.0, value(metric, 0.5), value(against, 0.5))])
    ((precision, recall),) = [(p.metric, r.metric) for p, r in precision_pairs(data, "digits")] or [
        ("", "")
    ]
    assert (precision, recall) == (metric, against)
