from __future__ import annotations

import numpy as np
import pytest

from bench.report.numbers.frame import Series, prepare
from bench.report.numbers.pareto import Point, borrowed, front, place, placed_cost, placed_quality
from tests.bench.report.factory import row, value
from tests.bench.report.rules_factory import sweep


def dominates(a, b):
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(
        x > y for x, y in zip(a, b, strict=True)
    )


def test_front_has_the_points_that_no_other_dominates():
    rng = np.random.default_rng(1)
    for _ in range(20):
        # Of few values, so that there are ties and equal points.
        points = rng.integers(0, 7, size=(30, 2))
        found = front(points[:, 0], points[:, 1])
        known = [not any(dominates(q, p) for q in points) for p in points]
        assert found.tolist() == known


def line(name):
    return Series("digits", name, 1)


def test_certain_points_hold_for_all_values_within_the_intervals():
    rng = np.random.default_rng(5)
    for _ in range(20):
        points = [
            Point(line(str(i % 4)), 1.0, x, y, (x - a, x + a), (y - b, y + b))
            for i, (x, y, a, b) in enumerate(
                zip(*rng.uniform(0, 1, (2, 12)), *rng.uniform(0, 0.15, (2, 12)), strict=True)
            )
        ]
        for p, found in zip(points, place(points, (False, False)), strict=True):
            others = [q for q in points if q is not p]
            worst = (p.x_span[0], p.y_span[0])
            if found.on_front:
                rivals = [(q.x_span[1], q.y_span[1]) for q in others if q.series != p.series]
                assert found.certain == (not any(dominates(q, worst) for q in rivals))
            else:
                best = (p.x_span[1], p.y_span[1])
                sure = any(dominates((q.x_span[0], q.y_span[0]), best) for q in others)
                assert found.certain == sure


def test_lower_is_better_if_asked():
    points = [
        Point(line("a"), 1.0, 1.0, 9.0, (1.0, 1.0), (8.0, 10.0)),
        Point(line("b"), 1.0, 2.0, 5.0, (2.0, 2.0), (4.0, 6.0)),
        Point(line("c"), 1.0, 2.0, 7.0, (2.0, 2.0), (5.5, 8.5)),
        Point(line("d"), 1.0, 3.0, 5.5, (3.0, 3.0), (5.4, 5.6)),
    ]
    found = place(points, (True, True))
    assert [p.on_front for p in found] == [True, True, False, False]
    # b could be worse than c, and d could be better than b.
    assert [p.certain for p in found] == [True, False, False, False]
    assert place([], (True, True)) == ()


def test_point_without_an_interval_is_never_certain():
    points = [
        Point(line("a"), 1.0, 1.0, 1.0, (0.9, 1.1), None),
        Point(line("b"), 1.0, 0.1, 0.1, (0.0, 0.2), (0.0, 0.2)),
    ]
    assert [(p.on_front, p.certain) for p in place(points, (False, False))] == [
        (True, False),
        (False, False),
    ]


def test_rows_without_guidance_are_one_point():
    rows = sweep("digits", rules=("apg", "cads"), scales=(1.0, 2.0), methods=("edm",))
    data = prepare(rows)
    columns = {c.metric: c for c in data.columns}
    placed = placed_quality(data, columns["precision"], columns["recall"])
    found = placed
    assert [(p.series.rule, p.guidance) for p in found] == [
        ("", 1.0),
        ("", 2.0),
        ("apg", 2.0),
        ("cads", 2.0),
    ]


def test_costs_are_those_of_the_scale_and_untimed_rows_are_left_out():
    rows = [
        row("digits", "edm", 1.0, value("fd", 3.0)),
        row("digits", "edm", 2.0, value("fd", 2.0), seconds_per_image=0.0),
        row("digits", "edm", 4.0, status="diverged", reason="NaN"),
    ]
    data = prepare(rows)
    (column,) = data.columns
    assert [(p.x, p.y) for p in placed_cost(data, column, "nfe")] == [
        (18, 3.0),
        (36, 2.0),
    ]
    (timed,) = placed_cost(data, column, "seconds")
    assert (timed.x, timed.guidance) == (pytest.approx(0.018), 1.0)


def test_lines_of_a_rule_with_several_knobs_have_rows_of_their_own():
    rows = sweep("digits", rules=("apg",), scales=(1.0, 4.0))
    other = [
        r.model_copy(update={"knobs": {"apg.eta": 0.25}, "knobs_from": "suite", "key": f"{r.key}k"})
        for r in rows
        if r.rule == "apg"
    ]
    data = prepare([*rows, *other])
    lines = [s for s in data.series("digits") if s.rule.startswith("apg")]
    assert {line.rule for line in lines} == {"apg", "apg (eta=0.25)"}
    for line in lines:
        assert borrowed(data, line, 1.0)
        assert not borrowed(data, line, 4.0)
    (cfg,) = data.ruled("digits")
    assert not borrowed(data, cfg, 1.0)
