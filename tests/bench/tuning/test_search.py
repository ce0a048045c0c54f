import math

import pytest

from bench.data import DATASETS
from bench.plugins.load import load_plugins
from bench.system.errors import UserError
from bench.tuning.aim import choose_metric, score, shown
from bench.tuning.search import FIRST, best_trial, propose
from bench.tuning.space import Space
from bench.tuning.store import Aim, ScaleValue, Trial
from methods.rules import RULES, make_rule
from tests.bench.tuning.helpers import EARLY, SHARE, plugin


def searched(space, count, objective, trials=(), seed=5):
    """`trials` and those after them, up to `count`, scored by a function of the point."""
    found = list(trials)
    while len(found) < count:
        proposal = propose(space, found, seed)
        if proposal is None:
            break
        value = objective(proposal.point)
        found.append(
            Trial(
                index=len(found), kind=proposal.kind, point=proposal.point,
                knobs=proposal.rule.settings(), created="",
                status="ok" if value is not None else "diverged", score=value,
            )
        )  # fmt: skip
    return found


@pytest.fixture
def share(tmp_path):
    assert load_plugins([plugin(tmp_path, SHARE)]) == []
    return Space(make_rule("share"))


def test_search_starts_at_the_default_and_refines_the_best(share):
    trials = searched(share, 20, lambda p: (p[0] - 0.37) ** 2)
    assert trials[0].knobs == RULES["share"]().settings()
    kinds = [trial.kind for trial in trials]
    assert kinds[1:FIRST] == ["spread"] * (FIRST - 1)
    assert kinds[FIRST:] == ["near", "spread"] * 6
    assert len({trial.knobs["share.share"] for trial in trials}) == 20
    # Seven of twenty evenly spread points are 1/7 apart; refinement comes closer than any of them.
    spread = [t for t in trials if t.kind == "spread"][: FIRST - 1]
    assert best_trial(trials).kind == "near"
    assert best_trial(trials).score < 0.1 * min(t.score for t in spread)


def test_search_does_not_depend_on_when_the_budget_is_raised(share):
    def bowl(point):
        return abs(point[0] - 0.6)

    assert searched(share, 30, bowl, searched(share, 11, bowl)) == searched(share, 30, bowl)
    assert searched(share, 6, bowl, seed=6) != searched(share, 6, bowl)


def test_search_ends_when_all_settings_are_tried(tmp_path):
    load_plugins([plugin(tmp_path, EARLY)])
    trials = searched(Space(make_rule("early")), 20, lambda p: p[0])
    assert sorted(trial.knobs["early.last"] for trial in trials) == [2, 9, 17]
    assert trials[0].knobs["early.last"] == 9
    assert best_trial(trials).knobs["early.last"] == 2


def test_search_without_scores_spreads_all_points(share):
    trials = searched(share, 14, lambda _: None)
    assert {trial.kind for trial in trials[1:]} == {"spread"}
    assert best_trial(trials) is None


def aim(direction="lower", log=False):
    return Aim(metric="fd", extractor="x", signature="", direction=direction, log=log,
               guidance=(4.0, 8.0), steps=1, samples=2, seed=0, reference="",
               reference_hash="")  # fmt: skip


def values(*numbers):
    return [ScaleValue(guidance=g, value=v) for g, v in zip((4.0, 8.0), numbers, strict=True)]


def test_score_is_a_mean_and_lower_is_better():
    assert score(aim(), values(1.0, 5.0)) == 3.0
    assert score(aim("higher"), values(0.2, 0.6)) == -0.4
    assert math.isclose(score(aim(log=True), values(2.0, 8.0)), math.log(4.0))
    assert score(aim(log=True), values(0.0, 1.0)) == pytest.approx(math.log(1e-12) / 2)
    assert (shown(aim("higher"), -0.4), shown(aim(log=True), math.log(4.0))) == ("0.4", "4")
    assert aim(log=True).what() == "geometric mean of fd x over g = 4, 8"
    assert aim().what("precision") == (
        "mean of fd x, less that of CFG at equal precision, over g = 4, 8"
    )


def test_choose_metric_by_default_and_by_name():
    digits, modes = DATASETS["digits"](), DATASETS["modes2d"]()
    assert (choose_metric(None, digits), choose_metric(None, modes)) == ("fd", "w1")
    assert choose_metric("kid", digits) == "kid"
    with pytest.raises(UserError, match="shift has no better direction"):
        choose_metric("shift", modes)
    with pytest.raises(UserError, match="Unknown metric 'fdd'"):
        choose_metric("fdd", digits)
