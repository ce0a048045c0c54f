from __future__ import annotations

from unittest import mock

import pytest
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from bench.report.figures.clouds import modes
from bench.report.figures.curves import MOST_LINES, guidance_panels
from bench.report.figures.figures import plan_comparison, plan_yardsticks
from bench.report.figures.overview import plan_overview
from bench.report.figures.style import look, render
from bench.report.numbers.frame import prepare
from tests.bench.report.factory import SCALES, demo, density, digits, images, row, value
from tests.bench.report.rules_factory import sweep
from tests.long import mostly_long


def default_figures(rows):
    data = prepare(rows)
    plans = (*plan_overview(data, ()), *plan_comparison(data, data.datasets))
    return [plan for plan in (*plans, *plan_yardsticks(data)) if not plan.every]


def planned(rows):
    return {plan.name: plan for plan in default_figures(rows)}


def test_a_data_set_opens_with_three_measures_and_its_samples():
    plans = planned(demo())
    assert {"digits-guidance", "digits-samples", "modes1d-guidance", "modes1d-modes"} <= set(plans)
    _, columns, lines, _ = plans["digits-guidance"].inputs
    assert [c.metric for c in columns] == ["fd", "precision", "recall"]
    assert [s.label for s in lines] == ["edm, 18 steps", "ct, 1 step", "igct, 1 step"]
    _, columns, _, _ = plans["modes1d-guidance"].inputs
    assert [c.metric for c in columns] == ["w1"]
    _, _, lines, scales = plans["modes1d-modes"].inputs
    assert [s.label for s in lines] == ["oracle, 18 steps", "edm, 18 steps", "igct, 1 step"]
    assert scales == (1.0, 4.0, 7.0, 13.0)


def test_a_method_has_one_line_with_its_most_steps():
    rows = [
        row("digits", "igct", g, value("fd", g), steps=k, key=f"{g}{k}")
        for g in SCALES
        for k in (1, 2)
    ]
    lines = planned(rows)["digits-guidance"].inputs[2]
    assert [s.label for s in lines] == ["igct, 2 steps"]


def test_panels_have_a_line_per_method_and_one_legend():
    data = prepare(digits())
    columns = [c for c in data.columns if c.metric in ("fd", "precision")]
    figure = guidance_panels(data, columns, data.plain("digits"))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    for axes in figure.axes:
        drawn = {line.get_label() for line in axes.lines}
        assert {"edm, 18 steps", "ct, 1 step", "igct, 1 step"} <= drawn
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == 5


def test_many_lines_are_spread_over_rows_that_show_the_others_in_grey():
    names = [f"method{i:02}" for i in range(2 * MOST_LINES + 1)]
    data = prepare(
        [
            row("digits", name, g, value("fd", i + g), key=f"{name}{g}", steps=1)
            for i, name in enumerate(names)
            for g in SCALES
        ]
    )
    figure = guidance_panels(data, data.columns, data.plain("digits"))
    drawn = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert [len(some) for some in drawn] == [6, 7, 6]
    assert [label for some in drawn for label in some] == [f"{name}, 1 step" for name in names]
    for axes in figure.axes:
        (grey,) = [found for found in axes.collections if isinstance(found, LineCollection)]
        shown = [line.get_ydata() for line in axes.lines] + [
            path[:, 1] for path in grey.get_segments()
        ]
        assert sorted(y[0] for y in shown) == [i + SCALES[0] for i in range(len(names))]
    legends = [[t.get_text() for t in part.legends[0].get_texts()] for part in figure.subfigs]
    assert legends == drawn


def test_peaks_are_whole_and_far_samples_are_counted():
    rows = [row("modes1d", "oracle", 1.0, value("w1", 0.0), preview=density(0.0)),
            row("modes1d", "edm", 1.0, value("w1", 2.5), preview=density(2.5, 0.02))]  # fmt: skip
    data = prepare(rows)
    figure = modes(data, "modes1d", data.series("modes1d"), (1.0,))
    exact, narrow = figure.axes
    for axes in figure.axes:
        (bars,) = axes.patches
        assert axes.get_ylim()[1] > bars.get_data().values.max()
    assert narrow.get_ylim()[1] > 2 * exact.get_ylim()[1]
    low, high = exact.get_xlim()
    assert low < 2 - 0.6
    assert 2 + 0.6 < high == pytest.approx(2 + 12 * 0.2)
    assert [text.get_text() for text in narrow.texts] == ["100% outside"]


def test_samples_of_other_classes_are_left_out():
    other = images(1).model_copy(update={"labels": (*range(1, 10), 0)})
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0), preview=images(1)),
        row("digits", "igct", 1.0, value("fd", 1.0), preview=images(2)),
        row("digits", "ct", 1.0, value("fd", 1.0), preview=other),
    ]
    shown = planned(rows)["digits-samples"].inputs[1]
    assert [s.method for s in shown] == ["edm", "igct"]


def texts(figure):
    """The extents in pixels of all texts that are drawn, and the size of the figure."""
    found = {}
    real = Text.draw

    def draw(text, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            found[text] = Text.get_window_extent(text)
        real(text, *args, **kwargs)

    with mock.patch.object(Text, "draw", draw):
        render(figure)
    return found, figure.bbox


MANY = ("oracle", "edm", "ct", "igct", "guided-cd", "mg-ct", "mg", "gft", "meanflow")
ROWS = {
    "demo": demo,
    "rules": lambda: sweep("digits", rules=("apg", "cads", "interval+apg"), scales=SCALES),
    "toy rules": lambda: sweep(
        "modes1d", rules=("apg", "cads"), scales=SCALES, methods=("oracle", "edm")
    ),
    "methods": lambda: [
        row("digits", m, g, value("fd", g * (k + 1)), value("precision", 1 / (k + g)),
            value("recall", 0.9 - k / 20))
        for k, m in enumerate(MANY) for g in SCALES
    ],
}  # fmt: skip


@pytest.mark.parametrize("rows", mostly_long(ROWS, {"demo", "methods"}))
def test_no_text_is_over_another_or_outside(rows):
    for plan in default_figures(ROWS[rows]()):
        with look():
            found, frame = texts(plan.draw())
        boxes = list(found.items())
        for k, (text, box) in enumerate(boxes):
            name = f"{plan.name}: {text.get_text()}"
            assert frame.x0 - 1 <= box.x0 <= box.x1 <= frame.x1 + 1, name
            assert frame.y0 - 1 <= box.y0 <= box.y1 <= frame.y1 + 1, name
            for other, taken in boxes[:k]:
                assert not box.padded(-1).overlaps(taken.padded(-1)), f"{name}, {other.get_text()}"
