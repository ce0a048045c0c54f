"""Which lines beat CFG at equal outcome, on rows with known numbers."""

import numpy as np
import pytest
from scipy.special import stdtr

from bench.report.numbers.frame import prepare
from bench.report.numbers.matched import is_cfg, match_lines, matched_frame
from bench.report.numbers.matched_verdict import matched_verdict
from bench.report.pages.matched import matched_table
from tests.bench.report.factory import row, value

RNG = np.random.default_rng(1)
NOISE = {name: RNG.normal(size=20) for name in ("fd", "precision", "displacement", "own")}
SCALES = (1.0, 2.0, 3.0, 4.0, 5.0)


def some(metric, number, se, **changes):
    """A value whose replicates have this jackknife error, nearly all of it shared noise."""
    noise = NOISE[metric] + 0.1 * NOISE["own"]
    noise = (noise - noise.mean()) / np.sqrt(19 / 20 * np.square(noise - noise.mean()).sum())
    left = tuple((number + se * noise).tolist())
    return value(metric, number, se=se, replicates=left, extractor="classifier", **changes)


def cell(method, g, moved, fd, precision=0.8, **changes):
    values = (
        some("displacement", moved, 0.02),
        some("fd", fd, 0.05),
        some("precision", precision, 0.01),
    )
    return row("digits", method, g, *values, **changes)


def line(method, moved, fd, scales=SCALES, **changes):
    """A line by functions of g."""
    key = f"{method}{changes.get('rule', '')}{changes.get('steps', '')}"
    return [cell(method, g, moved(g), fd(g), key=f"{key}{g}", **changes) for g in scales]


CFG = line("edm", lambda g: g - 1, lambda g: 3 + g)


def rule(name, moved, fd, scales=SCALES[1:], **changes):
    return line("edm", moved, fd, scales, rule=name, knobs_from="default", nfe=36, **changes)


BETTER = rule("good", lambda g: g - 1, lambda g: 2 + g)
WORSE = rule("bad", lambda g: (g - 1) / 2, lambda g: 5 + g)
SAME = rule("half", lambda g: (g - 1) / 2, lambda g: 3 + (1 + g) / 2)
IDLE = rule("idle", lambda g: 0.0, lambda g: 4.0)
FAR = rule("far", lambda g: 9.0, lambda g: 4.0)


def found(*lines):
    (one,) = match_lines(prepare([*CFG, *(row for rows in lines for row in rows)])).values()
    return one


def kinds(one):
    every = one.standings(one.chosen, one.leading)
    return {line.rule or line.method: s.kind for line, s in every.items()}


def test_lines_are_told_apart_by_what_they_reach_at_equal_outcome():
    one = found(BETTER, WORSE, SAME, IDLE, FAR)
    assert one.chosen.metric == "displacement"
    assert kinds(one) == {
        "good": "better", "bad": "worse", "half": "same", "idle": "idle", "far": "none",
    }  # fmt: skip


def test_verdict_states_the_difference_and_what_it_rests_on():
    text = matched_verdict(found(BETTER, SAME, IDLE, FAR))
    assert "FD classifier @300 against CFG at the scale g* of equal displacement" in text
    assert "“edm + good, 18 steps” (-1.0" in text
    assert "is significantly better than CFG" in text
    assert "“edm + half, 18 steps” does not differ significantly from CFG at another scale" in text
    assert "“edm + idle, 18 steps” does not differ from CFG without guidance" in text
    assert "for “edm + far, 18 steps” there is no single scale of equal outcome" in text
    assert "Provisional" not in text


def test_interpolated_values_of_cfg_are_provisional_until_it_is_run_there():
    between = rule("good", lambda g: g - 0.5, lambda g: 2 + g, (2.0, 3.0))
    text = matched_verdict(found(between))
    assert "Provisional for “edm + good, 18 steps”" in text
    run = line("edm", lambda g: g - 1, lambda g: 3 + g, (2.5, 3.5), only_matched=True)
    assert "Provisional" not in matched_verdict(found(between, run))


def test_learnt_method_is_compared_with_cfg_of_the_network():
    one = found(line("igct", lambda g: (g - 1) / 2, lambda g: 2 + (1 + g) / 2))
    (name,) = {d.cfg.label for d in one.of(one.chosen)}
    assert name == "edm, 18 steps"
    assert kinds(one) == {"igct": "better"}


def test_cfg_is_told_by_the_cost_of_guidance():
    data = prepare([*CFG, *line("igct", lambda g: 0.0, lambda g: 4.0)])
    assert {s.method: is_cfg(data, s) for s in data.series("digits")} == {
        "edm": True, "igct": False,
    }  # fmt: skip


def test_outcome_on_a_plateau_gives_way_to_another():
    one = found(BETTER)
    places = {d.match.place for d in one.duels if d.outcome.metric == "precision"}
    assert places == {"plateau"}
    assert one.chosen.metric == "displacement"
    (cells,) = [t.cells for t in matched_table(one, one.outcomes[0]).lines]
    assert cells[0].text == "no equal outcome"


def test_equal_cost_is_cfg_at_steps_that_cost_the_same():
    fewer = line("edm", lambda g: g - 1, lambda g: 2.5 + g, steps=9)
    one = found([r.model_copy(update={"nfe": 18}) for r in BETTER], fewer)
    duels = {d.guidance: d for d in one.of(one.chosen, "nfe") if d.series.rule == "good"}
    assert {(d.cfg.steps, d.nfe) for d in duels.values()} == {(9, (18, 18))}
    gap = next(gap for column, gap in duels[3.0].gaps.items() if column.metric == "fd")
    assert gap.value == pytest.approx(-0.5)


def test_p_is_adjusted_for_all_lines_and_scales():
    weak = rule("weak", lambda g: g - 1, lambda g: 3 + g - 0.1 * (g == 3))
    noise = RNG.normal(size=20)
    noise = 0.03 * (noise - noise.mean()) / np.sqrt(19 / 20 * np.square(noise - noise.mean()).sum())
    for i, r in enumerate(weak):
        values = {v.metric: v for v in r.values}
        left = tuple(np.add(values["fd"].replicates, noise).tolist())
        values["fd"] = values["fd"].model_copy(update={"replicates": left})
        weak[i] = r.model_copy(update={"values": tuple(values.values())})
    alone, many = found(weak), found(weak, BETTER, WORSE, SAME)
    (one,) = alone.standings(alone.chosen, alone.leading).values()
    p = {d.guidance: d.gaps[alone.leading].p for d in alone.of(alone.chosen)}
    assert one.best.guidance == 3.0
    assert p[3.0] == pytest.approx(2 * float(stdtr(19, -0.1 / 0.03)), rel=1e-3)
    assert one.p == pytest.approx(4 * p[3.0])
    assert kinds(alone) == {"weak": "better"}
    # Of 16 duels 8 are as good as certain, those of the lines that are better or worse.
    more = many.standings(many.chosen, many.leading)
    assert more[one.series].p == pytest.approx(8 * p[3.0])


def test_file_has_every_duel_with_its_interval_and_error():
    frame = matched_frame({"digits": found(BETTER, FAR)})
    own = frame[(frame.rule == "good") & (frame.outcome == "displacement") & (frame.metric == "fd")]
    assert set(own.equal) == {"steps", "nfe", "seconds"}
    assert (own.error == "paired jackknife").all()
    assert own.difference.round(6).eq(-1).all()
    assert set(frame[frame.rule == "far"].place) == {"beyond", "plateau"}
    assert frame[frame.rule == "far"].difference.isna().all()


def test_rows_of_few_scales_are_not_compared():
    few = [r for r in CFG if r.guidance < 3] + [r for r in BETTER if r.guidance < 3]
    assert match_lines(prepare(few)) == {}
