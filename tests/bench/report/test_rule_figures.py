from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from bench.report.figures.clouds import clouds, densities
from bench.report.figures.curves import metric_curve, precision_recall
from bench.report.figures.direct_labels import Label, put_labels
from bench.report.figures.figures import plan_comparison, plan_figures
from bench.report.figures.grids import tiles
from bench.report.figures.pareto_figures import (
    MOST_LABELS,
    ON_FRONT,
    cost_fronts,
    quality_front,
)
from bench.report.figures.rule_panels import rule_panels
from bench.report.figures.style import (
    OFF_FRONT,
    look,
    new_figure,
)
from bench.report.numbers.frame import prepare
from bench.report.numbers.pareto import placed_quality, precision_pairs
from bench.report.numbers.previews import chosen_scales
from tests.bench.report.factory import images, row, value
from tests.bench.report.rules_factory import sweep

RULES = ("apg", "cads", "interval+apg")
SCALES = (1.0, 4.0, 7.0, 13.0)


@pytest.fixture(scope="module")
def data():
    return prepare(sweep("digits", rules=RULES, scales=SCALES))


def test_methods_come_before_rules_and_rules_by_method():
    found = prepare(
        sweep("modes1d", rules=("b", "a"), scales=(1.0, 2.0), methods=("edm", "oracle"))
    )
    assert [s.label for s in found.series("modes1d")] == [
        *("oracle, 18 steps", "edm, 18 steps", "oracle + a, 18 steps", "oracle + b, 18 steps"),
        *("edm + a, 18 steps", "edm + b, 18 steps"),
    ]
    assert {found.variant(s) for s in found.series("modes1d")} == {0}


def test_curves_of_methods_have_no_rules(data):
    (column,) = [c for c in data.columns if c.metric == "fd"]
    names = [line.get_label() for line in metric_curve(data, column, ()).axes[0].lines]
    assert "edm, 18 steps" in names
    assert not [name for name in names if "+" in name]
    ((precision, recall),) = precision_pairs(data, "digits")
    axes = precision_recall(data, precision, recall).axes[0]
    assert not [line for line in axes.lines if "+" in line.get_label()]
    assert [s.rule for s in data.plain("digits")] == [""] * 6


def test_method_swept_only_under_rules_keeps_its_lines():
    rows = sweep("digits", rules=("apg",), scales=(1.0, 4.0), methods=("edm", "igct"))
    found = prepare([r for r in rows if r.rule or r.method == "igct" or r.guidance == 1.0])
    labels = [s.label for s in found.plain("digits")]
    assert labels == ["igct, 1 step", "edm + apg, 18 steps"]
    (base,) = found.ruled("digits")
    assert base == found.series("digits")[-1].base


def test_panels_show_one_rule_each_on_the_same_axes(data):
    (column,) = [c for c in data.columns if c.metric == "fd"]
    (base,) = data.ruled("digits")
    with look():
        figure = rule_panels(data, column, base)
        figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == list(RULES)
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    for axes, rule in zip(panels, RULES, strict=True):
        series = next(s for s in data.series("digits") if s.rule == rule)
        own = axes.lines[-1]
        assert list(own.get_xdata()) == list(SCALES)
        assert list(own.get_ydata()) == [data.cell(column, series, g).mean for g in SCALES]
        (grey,) = [c for c in axes.collections if len(c.get_paths()) == len(RULES) - 1]
        assert grey is not None
        cfg = next(line for line in axes.lines if line.get_linestyle() == "--")
        assert list(cfg.get_ydata()) == [data.cell(column, base, g).mean for g in SCALES]


def test_titles_of_panels_with_knobs_stay_above_their_panel():
    knobs = {"apg.eta": 0.25, "apg.beta": -0.75, "apg.threshold": 0.0195312}
    rows = sweep("digits", rules=(*RULES, "cfg-zero", "tcfg", "fdg"), scales=SCALES)
    own = [
        r.model_copy(update={"knobs": knobs, "knobs_from": "suite", "key": f"{r.key}k"})
        for r in rows
        if r.rule == "apg"
    ]
    found = prepare([*rows, *own])
    (column,) = [c for c in found.columns if c.metric == "fd"]
    (base,) = found.ruled("digits")
    with look():
        figure = rule_panels(found, column, base)
        figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert any("eta=0.25" in axes.get_title() for axes in panels)
    boxes = [axes.title.get_window_extent() for axes in panels]
    for axes, box in zip(panels, boxes, strict=True):
        assert box.width <= axes.bbox.width * 1.1, axes.get_title()
        assert box.y0 > axes.bbox.y1 - 1
        others = [other for other in panels if other is not axes]
        assert not [other for other in others if other.bbox.overlaps(box)], axes.get_title()


def test_every_front_point_is_on_the_figure_and_named(data):
    ((precision, recall),) = precision_pairs(data, "digits")
    with look():
        figure = quality_front(data, precision, recall)
    axes = figure.axes[0]
    on = [p for p in placed_quality(data, precision, recall) if p.on_front]
    (line,) = [x for x in axes.lines if x.get_label() == ON_FRONT]
    assert set(zip(*line.get_data(), strict=True)) == {(p.x, p.y) for p in on}
    (key,) = figure.legends
    names = [t.get_text() for t in key.get_texts()]
    for p in on:
        assert data.short_name(p.series) in names
    # There are more of them than have room for names.
    written = [t.get_text() for t in axes.texts]
    lines = {p.series for p in on}
    assert len(on) > MOST_LABELS
    assert len(written) == len(lines)
    assert all(text.startswith("g = ") for text in written)


def test_few_points_of_a_front_are_named_beside_them():
    few = prepare(sweep("digits", rules=("apg",), methods=("edm", "igct"), scales=(1.0, 3.0)))
    ((precision, recall),) = precision_pairs(few, "digits")
    with look():
        axes = quality_front(few, precision, recall).axes[0]
    on = [p for p in placed_quality(few, precision, recall) if p.on_front]
    text = " ".join(t.get_text() for t in axes.texts)
    for p in on:
        assert few.short_name(p.series) in text


def test_certain_points_of_a_front_are_filled(data):
    ((precision, recall),) = precision_pairs(data, "digits")
    with look():
        axes = quality_front(data, precision, recall).axes[0]
    on = [p for p in placed_quality(data, precision, recall) if p.on_front]
    markers = {
        (x.get_xdata()[0], x.get_ydata()[0]): x.get_fillstyle()
        for x in axes.lines
        if x.get_label() != ON_FRONT
    }
    assert markers == {(p.x, p.y): "full" if p.certain else "none" for p in on}


def test_costs_have_logarithmic_axes(data):
    (column,) = [c for c in data.columns if c.metric == "fd"]
    with look():
        figure = cost_fronts(data, column)
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "network evaluations per image",
        "time per image",
    ]


def test_labels_stay_inside_and_do_not_overlap():
    with look():
        figure = new_figure(4.0)
        axes = figure.add_subplot()
        points = np.column_stack([np.linspace(0, 1, 12), np.linspace(1, 0.2, 12)])
        axes.plot(*points.T, "o", color=OFF_FRONT)
        axes.margins(0.1)
        labels = [Label(f"edm + rule {i}, g = {i}", (x, y), "k") for i, (x, y) in enumerate(points)]
        put_labels(figure, axes, labels, points)
        figure.draw_without_rendering()
        frame = axes.get_window_extent()
    # Of the words alone: an annotation's own extent includes its leader.
    boxes = [Text.get_window_extent(t) for t in axes.texts]
    assert len(boxes) == 12
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
    assert all(frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("seed", [3, 5])
def test_no_label_covers_the_leader_of_another(seed):
    rng = np.random.default_rng(seed)
    with look():
        figure = new_figure(4.0)
        axes = figure.add_subplot()
        points = np.column_stack([np.sort(rng.random(24)), np.sort(rng.random(24))[::-1]])
        axes.plot(*points.T, "o", color=OFF_FRONT)
        axes.margins(0.1)
        labels = [Label(f"edm + rule {i}, g = {i}", tuple(xy), "k") for i, xy in enumerate(points)]
        put_labels(figure, axes, labels[:12], points)
        figure.draw_without_rendering()
    leaders = 0
    for text in axes.texts:
        if text.arrow_patch is not None:
            leaders += 1
            path = text.arrow_patch.get_path().transformed(text.arrow_patch.get_transform())
            line = np.linspace(path.vertices[0], path.vertices[-1], 50)
            others = [Text.get_window_extent(other) for other in axes.texts if other is not text]
            assert not any(box.count_contains(line) for box in others)
    assert leaders


def rule_grid(data, base):
    (plan,) = [p for p in plan_comparison(data, []) if p.name == "digits-samples-rules-edm-18"]
    assert plan.inputs[1][0] == base
    with look():
        return plan.draw()


def test_grid_has_a_row_per_rule_and_a_block_per_scale(data):
    (base,) = data.ruled("digits")
    axes = rule_grid(data, base).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cfg", *RULES]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["g = 1", "g = 4", "g = 7", "g = 13"]
    canvas = axes.images[0].get_array()
    series = next(s for s in data.series("digits") if s.rule == "cads")
    preview = data.rows_of(series, 13.0)[0].preview
    tile = tiles(preview)[1].repeat(12, 0).repeat(12, 1)
    top, left = 2 * (96 + 4), 3 * (4 * 96 + 3 * 4 + 24) + (96 + 4)
    np.testing.assert_array_equal(canvas[top : top + 96, left : left + 96], tile)


def test_grid_refuses_other_classes_and_shows_gaps():
    rows = sweep("digits", rules=("apg",), scales=(1.0, 4.0), methods=("edm",))
    less = [r.model_copy(update={"preview": None}) if r.rule else r for r in rows]
    found = prepare(less)
    (base,) = found.ruled("digits")
    # Without guidance no rule acts, so that block is there; that of g = 4 is not.
    canvas = rule_grid(found, base).axes[0].images[0].get_array()
    assert (canvas[100:196, -10:] == 235).all()
    other = images(3).model_copy(update={"labels": (*range(1, 10), 0)})
    mixed = [r.model_copy(update={"preview": other}) if r.rule else r for r in rows]
    with pytest.raises(ValueError, match="different classes"):
        rule_grid(prepare(mixed), base)


def test_scales_of_samples_are_the_usual_or_evenly_spread():
    assert chosen_scales([float(g) for g in range(1, 14)]) == [1.0, 4.0, 7.0, 13.0]
    assert chosen_scales([1.0, 2.0, 3.0, 5.0, 8.0]) == [1.0, 2.0, 5.0, 8.0]
    assert chosen_scales([1.0, 4.0]) == [1.0, 4.0]


@pytest.mark.parametrize(("dataset", "draw"), [("modes1d", densities), ("modes2d", clouds)])
def test_samples_have_one_row_per_rule(dataset, draw):
    found = prepare(sweep(dataset, rules=("apg",), scales=(1.0, 4.0), methods=("edm",)))
    ((base, lines),) = found.ruled(dataset).items()
    with look():
        figure = draw(found, dataset, (base, *lines), (4.0,), 0.9)
    assert [axes.get_ylabel() for axes in figure.axes] == ["cfg", "apg"]


def test_figures_of_rules_and_methods_are_planned_separately(data):
    names = [plan.name for plan in plan_figures(data, ())]
    assert len(names) == len(set(names))
    assert not [name for name in names if "rules" in name]
    assert len([name for name in names if "samples" in name]) == 7
    more = list(plan_comparison(data, ["digits"]))
    assert {p.name for p in more if p.first} == {
        "digits-front-precision-recall-classifier",
        "digits-front-fd-classifier-cost",
    }
    assert "digits-samples-rules-edm-18" in {p.name for p in more}
    columns = {p.column.metric for p in more if p.column}
    assert columns == {"fd", "precision", "recall", "saturation", "class_accuracy"}
    assert [p.name for p in plan_comparison(data, []) if p.first] == []


def test_figure_without_rules_is_not_planned():
    rows = [row("digits", m, 1.0, value("fd", x)) for m, x in (("edm", 1.0), ("igct", 2.0))]
    assert [p.name for p in plan_comparison(prepare(rows), ["digits"])] == [
        "digits-front-fd-classifier-cost"
    ]
