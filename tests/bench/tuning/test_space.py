import math
from typing import ClassVar

import numpy as np
import pytest

from bench.experiment.rules import nested
from bench.tuning.space import Axis, Space
from methods import Settings
from methods.rules import Between, OneOf, Rule, register_rule


class Knobs(Settings):
    width: float = 1.0
    count: int = 4
    kind: str = "b"
    limit: float | None = None
    fixed: float = 7.0


class Wide(Rule[Knobs]):
    name, summary = "wide", "for tests"
    knobs_type = Knobs
    search: ClassVar = {
        "width": Between(0.01, 100.0, log=True),
        "count": Between(1, 9),
        "kind": OneOf(("a", "b", "c")),
        "limit": Between(2.0, 4.0),
    }


class Ordered(Settings):
    low: float = 0.2
    high: float = 0.8

    def model_post_init(self, _):
        if self.low > self.high:
            raise ValueError("low is above high")


class Pair(Rule[Ordered]):
    name, summary = "pair", "for tests"
    knobs_type = Ordered
    search: ClassVar = {"low": Between(0.0, 1.0), "high": Between(0.0, 1.0)}


@pytest.fixture(autouse=True)
def _registered():
    register_rule(Wide)
    register_rule(Pair)


def test_axis_goes_from_low_to_high():
    line = Axis("r", "k", Between(-2.0, 6.0))
    assert [line.at(u) for u in (0.0, 0.25, 1.0)] == [-2.0, 0.0, 6.0]
    ratio = Axis("r", "k", Between(0.01, 100.0, log=True))
    assert ratio.at(0.0) == 0.01
    assert ratio.at(1.0) == 100.0
    assert math.isclose(ratio.at(0.5), 1.0)  # the geometric mean
    whole = Axis("r", "k", Between(1, 9), whole=True)
    assert [whole.at(u) for u in (0.0, 0.1, 1.0)] == [1, 2, 9]
    choice = Axis("r", "k", OneOf(("a", "b", "c")))
    assert [choice.at(u) for u in (0.0, 0.34, 0.5, 0.99, 1.0)] == ["a", "b", "b", "c", "c"]


def test_axis_where_inverts_axis_at():
    axes = [
        Axis("r", "k", Between(-2.0, 6.0)),
        Axis("r", "k", Between(0.01, 100.0, log=True)),
        Axis("r", "k", OneOf((1, None, "x"))),
    ]
    for axis in axes:
        for u in (0.0, 0.3, 0.5, 0.9, 1.0):
            value = axis.at(u)
            again = axis.at(axis.where(value))
            assert again == value if isinstance(axis.over, OneOf) else math.isclose(again, value)
    assert axes[0].where(99.0) == 1.0
    assert axes[1].where(0.0) == 0.0
    assert axes[0].where(None) == 0.5


def test_space_maps_a_point_to_a_rule():
    space = Space(Wide(Knobs(fixed=8.0)))
    assert [axis.knob for axis in space.axes] == ["width", "count", "kind", "limit"]
    assert space.origin == (0.5, 0.375, 0.5, 0.5)
    knobs = space.rule((1.0, 1.0, 0.0, 0.5)).settings()
    assert knobs == {"wide.width": 100.0, "wide.count": 9, "wide.kind": "a", "wide.limit": 3.0,
                     "wide.fixed": 8.0}  # fmt: skip
    assert nested(knobs)["wide"]["count"] == 9


def test_space_of_a_composition_has_all_axes():
    from methods.rules import Composite

    space = Space(Composite([Wide(), Pair()]))
    assert [axis.rule for axis in space.axes] == ["wide"] * 4 + ["pair"] * 2
    rule = space.rule((0.5, 0.5, 0.5, 0.5, 0.1, 0.6))
    assert (rule.settings()["pair.low"], rule.settings()["pair.high"]) == (0.1, 0.6)
    assert rule.settings()["wide.count"] == 5


def test_space_gives_no_rule_for_refused_knobs():
    assert Space(Pair()).rule((0.9, 0.1)) is None
    assert Space(Pair()).rule((0.1, 0.9)) is not None


def test_points_are_spread_evenly_and_by_seed():
    space = Space(Pair())
    points = np.array(list(space.spread(1)))
    # A (0, 2)-sequence in base 2: every aligned block of 2^m points has one point in each of the
    # 2^m elementary intervals of either coordinate.
    for m in (3, 6):
        block = points[: 2**m]
        for column in block.T:
            assert sorted((column * 2**m).astype(int)) == list(range(2**m))
    assert np.array_equal(points, list(space.spread(1)))
    assert not np.array_equal(points, list(space.spread(2)))


def test_near_points_stay_near_and_inside_the_cube():
    centre = (0.02, 0.6)
    points = np.array(list(Space(Pair()).near(centre, 0.1, 3)))
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.abs(points - centre).max() <= 0.1
    # It reaches out to its radius, up to what 2048 points leave out.
    assert np.abs(points - centre).max(0) == pytest.approx([0.1, 0.1], abs=1e-3)
