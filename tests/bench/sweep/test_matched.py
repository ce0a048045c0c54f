"""Controls of the comparison at equal outcome, with the exact denoiser."""

import shutil
import textwrap

import numpy as np
import pytest

from bench.data.find import find_dataset
from bench.experiment.rows import read_rows, seal
from bench.report.numbers.frame import prepare
from bench.report.numbers.matched import match_lines
from bench.report.numbers.matched_verdict import matched_verdict
from bench.sweep.generate import generate
from bench.sweep.matched import _cover
from bench.training.card import make_card, make_method
from methods import Guidance
from tests.bench.helpers import bench

RULES = """
    from methods.rules import Rule, register_rule

    @register_rule
    class Same(Rule):
        "CFG under another name."
        name, summary = "same", "CFG"

    @register_rule
    class Half(Rule):
        "CFG at (1 + g) / 2."
        name, summary = "half", "CFG at another scale"

        def scale(self, g, at):
            return (1 + g) / 2

    @register_rule
    class Idle(Rule):
        "No guidance."
        name, summary = "idle", "does nothing"

        def scale(self, g, at):
            return 1.0

    @register_rule
    class Contrast(Rule):
        "CFG whose samples have 1% more contrast."
        name, summary = "contrast", "a decoy"

        def finish(self, guided, d_cond, call):
            return 1.01 * guided
"""
SCALES = (1.0, 2.0, 4.0, 7.0, 10.0)
N = 200
SWEEP = (
    *("sweep", "-m", "oracle", "-d", "modes2d", "-n", N, "-g", "1,2,4,7,10", "--workers", "1"),
    *("--rule", "cfg,same,half,idle,contrast,tdg", "--metric", "fd", "--metric", "w1"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A sweep with CFG at the matched scales, and what it wrote before those."""
    folder = tmp_path_factory.mktemp("matched")
    plugin = folder / "rules.py"
    plugin.write_text(textwrap.dedent(RULES))
    common = (*SWEEP, "--plugin", plugin, "--results", folder / "results")
    ran = bench(*common, "--matched", "--match-nfe")
    assert (ran.code, ran.err) == (0, "")
    return folder / "results" / "default", ran.out, common


@pytest.fixture(scope="module")
def rows(place):
    return read_rows(place[0] / "cells")


def matched(rows):
    (found,) = match_lines(prepare(rows)).values()
    assert found.chosen.metric == "displacement"
    return found


def duels(found, rule, equal="steps"):
    return {d.guidance: d for d in found.of(found.chosen, equal) if d.series.rule == rule}


def gaps(duel):
    return {column.metric: gap for column, gap in duel.gaps.items()}


def standing(found, rule):
    every = found.standings(found.chosen, found.leading)
    return next(s for line, s in every.items() if line.rule == rule)


def test_cfg_against_itself_is_matched_at_its_own_scale_without_a_difference(rows):
    found = matched(rows)
    for g, duel in duels(found, "same").items():
        assert duel.match.scale == pytest.approx(g)
        assert gaps(duel)["fd"].value == pytest.approx(0, abs=1e-12)
        assert gaps(duel)["fd"].se == pytest.approx(0, abs=1e-6)
    assert standing(found, "same").kind == "same"


def test_cfg_at_another_scale_is_found_out(rows):
    found = matched(rows)
    for g, duel in duels(found, "half").items():
        assert duel.match.measured
        assert duel.match.low <= (1 + g) / 2 <= duel.match.high
        assert duel.match.scale == pytest.approx((1 + g) / 2, rel=0.03)
    assert standing(found, "half").kind == "same"


def test_rule_that_does_nothing_is_matched_without_guidance_and_ties(rows):
    found = matched(rows)
    for duel in duels(found, "idle").values():
        assert (duel.match.scale, duel.match.place) == (1.0, "at")
        assert gaps(duel)["fd"].value == pytest.approx(0, abs=1e-12)
    assert standing(found, "idle").kind == "idle"


def test_decoy_loses_against_cfg_run_at_its_match(rows):
    found = matched(rows)
    best = standing(found, "contrast")
    assert (best.kind, best.provisional) == ("worse", False)
    assert best.better == 0
    there = {g: d.match for g, d in duels(found, "contrast").items()}
    # More contrast moves samples too, at high scales further than CFG at any.
    assert all(match.scale > g for g, match in there.items() if match.place == "at")
    assert (there[2.0].place, there[10.0].place) == ("at", "beyond")
    text = matched_verdict(found)
    assert "“oracle + contrast, 18 steps” (+" in text
    assert "significantly worse than CFG" in text
    assert "Provisional" not in text


@pytest.mark.long
def test_negative_control_is_found_out_as_cfg_at_another_scale(tmp_path):
    """TDG guides with the exact denoiser like CFG at 1/2 + 1.3 g."""
    swept = ("sweep", "-m", "oracle", "-d", "modes2d", "-n", N, "-g", "1,2,4,7", "--workers", "1")
    chosen = ("--rule", "cfg,tdg", "--metric", "fd", "--matched", "--results", tmp_path)
    assert bench(*swept, *chosen).code == 0
    found = matched(read_rows(tmp_path / "default" / "cells"))
    scales = {g: duel.match.scale for g, duel in duels(found, "tdg").items()}
    for g in (2.0, 4.0):
        assert scales[g] == pytest.approx(0.5 + 1.3 * g, rel=0.03)
    assert standing(found, "tdg").kind == "same"


def test_decoy_of_ga_eval_is_cfg_at_another_scale(rows):
    """TDG, which "Guidance Matters" (ICLR 2026) made to expose comparisons at nominal scales."""
    found = matched(rows)
    best = standing(found, "tdg")
    assert best.kind == "same"
    assert best.best.match.scale > best.best.guidance


def test_report_without_cells_at_the_matched_scales_is_provisional(rows):
    found = matched([row for row in rows if not row.only_matched])
    loose = [d for d in found.duels if d.gaps and not d.match.measured]
    assert {d.series.rule for d in loose} >= {"half", "contrast"}
    best = standing(found, "contrast")
    assert best.provisional or best.kind == "same"


def test_matched_cells_are_few_and_have_no_column_in_tables(rows):
    data = prepare(rows)
    only = [row for row in rows if row.only_matched and row.guidance not in SCALES]
    # Of 20 duels at equal steps, and as many at equal cost.
    assert 0 < len([row for row in only if row.steps == 18]) <= 8
    assert len(only) <= 18
    assert {row.rule for row in only} == {""}
    assert data.guidances("modes2d") == SCALES


def test_same_command_computes_nothing_more(place):
    ran = bench(*place[2], "--matched", "--match-nfe")
    assert ran.code == 0
    assert " 0 cells computed" in ran.out
    assert "at equal outcome computed" not in ran.out


def test_cfg_at_the_steps_of_equal_cost_is_added(rows):
    """The rules take 35, 70 and 105 evaluations; CFG takes 34, 70 and 106 in these steps."""
    steps = {row.steps: row.nfe for row in rows if row.guidance > 1 and not row.rule}
    assert steps == {9: 34, 18: 70, 27: 106}
    found = matched(rows)
    equal = duels(found, "idle", "nfe")
    assert {(d.cfg.steps, d.nfe) for d in equal.values()} == {(9, (35, 34))}
    # The other step counts stand in no table of their own.
    data = prepare(rows)
    assert {s.steps for s in data.series("modes2d")} == {18}
    assert {s.steps for s in data.companions("modes2d")} == {9, 27}


def test_companion_becomes_a_line_when_it_is_swept(place):
    common = place[2]
    assert " 0 cells computed" not in bench(*common, "--steps", "9").out
    data = prepare(read_rows(place[0] / "cells"))
    assert {s.steps for s in data.series("modes2d")} == {9, 18}


def test_displacement_is_that_of_samples_of_the_same_noise(rows):
    data = find_dataset("modes2d")
    method = make_method(make_card("oracle", data=data), data)

    def samples(g):
        import torch

        made = generate(method, method.build(), Guidance(g), 18, 0, N, batch=64,
                        device=torch.device("cpu"))  # fmt: skip
        return np.concatenate([x.numpy() for x, _ in made]).astype(float)

    expected = np.linalg.norm(samples(4.0) - samples(1.0), axis=1).mean()
    own = [r for r in rows if (r.guidance, r.rule, r.steps) == (4.0, "same", 18)]
    (value,) = [v for v in own[0].values if v.metric == "displacement"]
    assert value.value == pytest.approx(expected, rel=1e-6)


def test_rule_that_acts_at_g_1_is_no_twin_of_other_cells(place, tmp_path):
    """Rules are swept in this order: "idle" after a rule whose samples at g = 1 are guided."""
    plugin = place[2][place[2].index("--plugin") + 1]
    ran = bench(
        "sweep", "-m", "oracle", "-d", "modes2d", "-n", N, "-g", "1,4", "--workers", "1",
        "--rule", "self-guidance,idle", "--metric", "displacement", "--plugin", plugin,
        "--results", tmp_path,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    moved = {(r.rule, r.guidance): r.values[0].value for r in read_rows(tmp_path / "default/cells")
             if r.method == "oracle"}  # fmt: skip
    assert moved["self-guidance", 1.0] > 0.1
    assert moved["idle", 4.0] == pytest.approx(0, abs=1e-6)


def test_scales_are_found_without_rows_of_an_older_metric(place, tmp_path):
    """Such rows stay behind at scales that are no longer swept."""
    root, _, common = place
    results = tmp_path / "results"
    shutil.copytree(root.parent, results)
    old = next(
        r for r in read_rows(root / "cells") if (r.rule, r.guidance, r.steps) == ("half", 7.0, 18)
    )
    (path,) = (results / "default" / "cells").rglob(f"*{old.key[:12]}*.json")
    values = [v.model_copy(update={"version": 0, "signature": "older"}) for v in old.values]
    path.write_text(seal(old.model_copy(update={"values": tuple(values)})))
    args = [results if a == root.parent else a for a in common]
    args[args.index("1,2,4,7,10")] = "1,2,4,10"
    assert bench(*args, "--matched").err == ""


def test_cover_leaves_no_scale_far_from_one_of_it():
    wanted = [1.01, 1.02, 1.03, 1.5, 2.0, 2.02, 7.0, 7.2, 7.3]
    chosen = list(_cover(wanted))
    assert len(chosen) == 4
    assert all(min(abs(c - g) for c in chosen) <= 0.03 * g + 1e-3 for g in wanted)
