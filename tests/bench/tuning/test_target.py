"""The default aim: a rule cannot win by switching itself off."""

import numpy as np
import pytest

from bench.system.errors import UserError
from bench.tuning.aim import score
from bench.tuning.store import Aim, ScaleValue, read_result, read_trials
from bench.tuning.target import UNGUIDED, Target, baseline_scales, make_target
from tests.bench.helpers import bench
from tests.bench.tuning.helpers import SHARE, plugin

RUN = "modes1d-oracle-s0"
COMMON = ("--method", "oracle", "--dataset", "modes1d", "-n", "60", "--workers", "1")
AIM = {
    "metric": "fd", "extractor": "", "signature": "", "direction": "lower", "log": True,
    "guidance": (3.0, 5.0), "steps": 1, "samples": 9, "seed": 0, "reference": "",
    "reference_hash": "", "outcomes": ("precision",),
}  # fmt: skip


def aim(**changes):
    return Aim(**{**AIM, **changes})


def at(g, value, outcome, se=0.01, **more):
    return ScaleValue(guidance=g, value=value, outcomes={"precision": (outcome, se), **more})


CFG = (at(1.0, 1.0, 0.5), at(3.0, 2.0, 0.7), at(5.0, 8.0, 0.8))
TARGET = make_target(aim(), CFG, ("precision",))


def test_cfg_itself_has_the_score_of_a_tie():
    assert score(aim(), CFG[1:], TARGET) == pytest.approx(0.0)


def test_score_is_the_mean_log_ratio_at_equal_outcome():
    """At precision 0.75 CFG is at g = 4, where its value is the geometric mean of 2 and 8."""
    found = score(aim(), [at(3.0, 2.0, 0.75), at(5.0, 8.0, 0.8)], TARGET)
    assert found == pytest.approx(np.mean([np.log(2.0 / 4.0), 0.0]))


def test_score_of_a_metric_with_zeros_is_a_difference():
    kid = aim(log=False)
    found = score(
        kid, [at(3.0, 2.5, 0.7), at(5.0, 8.0, 0.8)], make_target(kid, CFG, ("precision",))
    )
    assert found == pytest.approx(0.25)
    higher = aim(log=False, direction="higher")
    assert score(higher, [at(3.0, 2.5, 0.7)], TARGET) == pytest.approx(-0.5)


def test_scale_that_hardly_guides_counts_as_worse_than_any_other():
    off = [at(3.0, 1.0, 0.5), at(5.0, 1.0, 0.5)]
    weak = [at(3.0, 1.0, 0.515), at(5.0, 1.0, 0.53)]
    poor = [at(3.0, 900.0, 0.7), at(5.0, 900.0, 0.8)]
    assert score(aim(), off, TARGET) == pytest.approx(UNGUIDED)
    # g = 1.15 is below a tenth of the way from 1 to 3, g = 1.3 below that to 5.
    assert score(aim(), weak, TARGET) == pytest.approx(UNGUIDED)
    assert score(aim(), poor, TARGET) < UNGUIDED
    assert score(aim(), off) < score(aim(), poor)  # by the metric alone it would win


def test_outcome_beyond_that_of_cfg_is_compared_where_cfg_reaches_most():
    flat = (*CFG, at(9.0, 99.0, 0.8))
    target = make_target(aim(), flat, ("precision",))
    assert target.scale(0.9) == 5.0
    assert target.scale(0.4) == 1.0


def test_outcome_that_cfg_does_not_raise_gives_way_to_the_next():
    found = [
        ScaleValue(
            guidance=g, value=1.0, outcomes={"precision": (p, 0.02), "displacement": (d, 0.1)}
        )
        for g, p, d in ((1.0, 0.7, 0.0), (3.0, 0.8, 2.0), (5.0, 0.6, 4.0))
    ]  # fmt: skip
    target = make_target(aim(), found, ("precision", "displacement"))
    assert target == Target("displacement", (1.0, 3.0, 5.0), (0.0, 2.0, 4.0), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="CFG's precision does not rise steadily up to"):
        make_target(aim(), found, ("precision",))


def test_baseline_has_both_ends_and_more_scales_near_1():
    scales = baseline_scales((4.0, 13.0))
    assert scales == (1.0, 1.75, 2.5, 4.0, 7.0, 10.0, 13.0)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results"


def tune(tmp_path, place, *options):
    ran = bench(
        "tune", "--rule", "share", "-g", "3,6", *COMMON, *options,
        "--plugin", plugin(tmp_path, SHARE), "--results", place,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    return read_result(place / "default" / "tuned" / RUN / "share.json"), ran.out


def test_rule_whose_knob_switches_it_off_cannot_win_by_that(tmp_path, place):
    matched, out = tune(tmp_path, place, "--budget", "10")
    assert matched.outcome == "displacement"
    assert "w1, over that of CFG at equal displacement from g = 1, over g = 3, 6" in out
    assert matched.knobs["share.share"] > 0.1
    # All shares that guide are CFG at another scale, so none is far from a tie.
    scores = {t.knobs["share.share"]: t.score for t in matched.trials}
    assert all(abs(s) < 0.1 for share, s in scores.items() if share > 0.12)
    plain, _ = tune(tmp_path, place, "--budget", "10", "--aim", "metric")
    assert plain.knobs["share.share"] < 0.1
    off = [t.score for t in matched.trials if t.knobs["share.share"] < 0.05]
    assert all(score == UNGUIDED for score in off)


def test_cfg_is_measured_once_for_all_rules_of_a_run(tmp_path, place):
    tune(tmp_path, place, "--budget", "1")
    (folder,) = (place / "default" / "tuned" / RUN / "cfg").iterdir()
    (trial,) = read_trials(folder)
    assert [v.guidance for v in trial.values] == list(baseline_scales((6.0,)))
    assert trial.values[0].outcomes["displacement"] == (0.0, 0.0)
    before = (folder / "0000.json").read_bytes()
    tune(tmp_path, place, "--budget", "2")
    assert (folder / "0000.json").read_bytes() == before


def test_unknown_aim_gives_one_sentence(tmp_path, place):
    ran = bench("tune", "--rule", "apg", "--aim", "machted", "--results", place)
    assert ran.code == 2
    assert "Did you mean 'matched'?" in ran.err or "matched" in ran.err
