"""Guidance rules by options of sweeps and samples."""

import csv
import json
import zipfile

import numpy as np
import pytest

from bench.experiment.rules import parse_knobs, parse_rules, study_rules
from bench.experiment.suite import Study
from bench.system.errors import UserError
from tests.bench.helpers import bench, rows_of
from tests.bench.tuning.helpers import EARLY, SHARE, plugin

ORACLE = ("-m", "oracle", "-d", "modes1d")
SHORT = ("-n", "30", "--metric", "w1")


@pytest.fixture
def options(tmp_path):
    files = plugin(tmp_path, SHARE), plugin(tmp_path, EARLY, "early.py")
    return ("--plugin", files[0], "--plugin", files[1], "--results", tmp_path / "results")


def test_rules_and_knobs_are_parsed():
    assert parse_rules(None) == ("cfg",)
    assert parse_rules(["cfg, apg", "interval+apg"]) == ("cfg", "apg", "interval+apg")
    assert parse_rules(["cfg++,interval+cfg++"]) == ("cfgpp", "interval+cfgpp")
    named = Study(dataset="digits", methods=(), rules=("cfg++",))
    assert [choice.rule.name for choice in study_rules(named)] == ["cfgpp"]
    assert parse_knobs(["a.x=0.5", "a.y=null", "b.z=slow", 'b.w=[1,"2"]']) == {
        "a": {"x": 0.5, "y": None},
        "b": {"z": "slow", "w": [1, "2"]},
    }
    for wrong in ("x=1", "a.x", "a.=1", ".x=1", "=1"):
        with pytest.raises(UserError, match=r"--knob takes rule\.knob=value") as caught:
            parse_knobs([wrong])
        assert caught.value.code == 2
    for wrong in ("", "cfg,", "a+", "+"):
        with pytest.raises(UserError, match="--rule takes names"):
            parse_rules([wrong])


def test_knobs_of_a_rule_that_is_not_swept_are_refused():
    study = Study(dataset="digits", methods=(), knobs={"cfg": {}})
    assert [choice.rule.name for choice in study_rules(study)] == ["cfg"]
    with pytest.raises(UserError, match="Rule 'cfg' has no knobs, got 'eta'"):
        study_rules(study.model_copy(update={"knobs": {"cfg": {"eta": 1}}}))


@pytest.mark.usefixtures("empty_figures")
def test_sweep_samples_single_and_composed_rules(options, tmp_path):
    ran = bench("sweep", *ORACLE, *SHORT, "-g", "1,3,5", "--rule", "cfg,share",
                "--rule", "share+early", "--knob", "share.share=0.25",
                "--knob", "early.last=2", *options)  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    rows = rows_of(tmp_path / "results", "oracle")
    # One row at g = 1, where no rule acts, and one a rule at each other scale.
    assert [(r.guidance, r.rule, r.knobs_from) for r in rows if not r.rule] == [
        (1.0, "", ""), (3.0, "", ""), (5.0, "", ""),
    ]  # fmt: skip
    found = {(r.rule, r.guidance): r for r in rows if r.rule}
    assert set(found) == {(rule, g) for rule in ("share", "share+early") for g in (3.0, 5.0)}
    assert found["share", 3.0].knobs == {"share.share": 0.25, "share.unused": 3}
    assert found["share+early", 3.0].knobs["early.last"] == 2
    # Three of eighteen steps are guided, with two evaluations of the branch each.
    assert (found["share", 3.0].nfe, found["share+early", 3.0].nfe) == (70, 41)
    assert len({r.key for r in rows}) == len(rows)
    assert bench("report", "--results", tmp_path / "results").code == 0
    summary = tmp_path / "results" / "default" / "report" / "summary.csv"
    with summary.open(newline="") as file:
        assert {row["guidance"] for row in csv.DictReader(file)} == {"1.0", "3.0", "5.0"}


def test_plan_has_a_rule_column_for_several_rules(options):
    plan = ("sweep", *ORACLE, *SHORT, "-g", "1,3", "--dry-run", *options)
    ran = bench(*plan, "--rule", "cfg,share")
    assert ran.code == 0
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")]
             for line in ran.out.splitlines() if "oracle" in line]  # fmt: skip
    # 30 samples of 35 + 70 evaluations, and of 70.
    assert [line[:7] for line in lines] == [
        ["modes1d-oracle-s0", "cfg", "18", "2", "0", "0", "3,150"],
        ["modes1d-oracle-s0", "share", "18", "1", "0", "0", "2,100"],
    ]
    assert "rule" not in bench(*plan, "--rule", "share").out


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("--rule", "shore"), "Unknown guidance rule 'shore'. Did you mean 'share'?"),
        (("--rule", "share+shore"), "Unknown guidance rule 'shore'."),
        (("--rule", "cgf"), "Unknown guidance rule 'cgf'. Did you mean 'cfg'?"),
        (("--rule", "share+share"), "Rules do not compose as 'share+share'"),
        (("--rule", "share", "--knob", "share.shore=1"), "Unknown knob of share 'shore'."),
        (("--rule", "share", "--knob", "share.share=2"), "Rule 'share': share: input should be"),
        (("--rule", "share", "--knob", "share.share=NaN"), "Rule 'share': share: input should be"),
        (("--rule", "share", "--knob", "early.last=2"), "There are knobs for the rule 'early'"),
        (("--rule", "share", "--suite", "demo"), "--suite sets this itself: drop --rule"),
        (("--knob", "share.share=1", "--suite", "demo"), "drop --knob"),
        (("--tuned", "--suite", "demo"), "drop --tuned"),
    ],
)
def test_sweep_mistake_is_one_sentence_before_any_work(options, tmp_path, given, error):
    data = () if "--suite" in given else ORACLE
    ran = bench("sweep", *data, *given, *options)
    assert ran.code == 2
    assert error in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_suite_with_wrong_rule_is_refused(options, tmp_path):
    suite = tmp_path / "my.toml"
    suite.write_text('[[study]]\ndataset = "modes1d"\nmethods = ["oracle"]\nrules = ["shore"]\n')
    ran = bench("sweep", "--suite", suite, *options)
    assert ran.code == 2
    assert "Unknown guidance rule 'shore'." in ran.err


def test_unused_rule_is_reported(trained, options):
    where = (*options[:4], "--results", trained)
    ran = bench("sweep", "-m", "igct", *SHORT, "-g", "1,3", "--rule", "share", *where)
    assert ran.code == 0
    told = [line for line in ran.out.splitlines() if "No run uses the rule" in line]
    assert told == [
        "No run uses the rule share: only methods that are guided at sampling take one, and none "
        "of these runs is of such a method."
    ]
    assert {row.rule for row in rows_of(trained, "igct")} == {""}
    ran = bench("sweep", "-m", "igct", "-m", "edm", "--dry-run", "--steps", "2", *SHORT,
                "-g", "3", "--rule", "share", *where)  # fmt: skip
    assert "No run uses" not in ran.out


def samples(*given):
    return bench("sample", *ORACLE, "-n", "8", *given)


def test_samples_of_a_rule_equal_those_of_the_sweep(options, tmp_path):
    given = ("-g", "3", "--rule", "share", "--knob", "share.share=0.25")
    assert bench("sweep", *ORACLE, "-n", "8", "--metric", "w1", "--save-samples", "npz",
                 *given, *options).code == 0  # fmt: skip
    folder = tmp_path / "results" / "default" / "samples" / "modes1d-oracle-s0"
    (kept,) = folder.iterdir()
    again = samples(*given, *options)
    assert "already in" in again.out
    out = tmp_path / "own.npz"
    ran = samples(*given, "--out", out, *options)
    assert ran.code == 0
    assert "at guidance 3 by share, 70 NFE each" in ran.out
    with np.load(kept) as a, np.load(out) as b:
        assert np.array_equal(a["arr_0"], b["arr_0"])
        card = json.loads(str(b["about"]))
    assert (card["rule"], card["knobs"]) == ("share", {"share.share": 0.25, "share.unused": 3})


def test_files_of_rules_and_knobs_have_different_names(options, tmp_path):
    for given in (
        (),
        ("--rule", "share"),
        ("--rule", "share", "--knob", "share.share=0.25"),
        ("--rule", "share", "--knob", "share.share=0.5"),
        ("--rule", "share+early"),
    ):
        ran = samples("-g", "3", *given, *options)
        assert (ran.code, ran.err) == (0, "")
        assert "already" not in ran.out
    folder = tmp_path / "results" / "default" / "samples" / "modes1d-oracle-s0"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    assert {"g3-steps18-seed0.npz", "g3-share-steps18-seed0.npz",
            "g3-share+early-steps18-seed0.npz"} <= set(names)  # fmt: skip
    contents = set()
    for name in names:
        with np.load(folder / name) as file:
            contents.add(file["arr_0"].tobytes())
    assert len(contents) == 5


def test_file_of_another_rule_is_not_overwritten(options, tmp_path):
    out = ("--out", tmp_path / "x.npz", "-g", "3")
    assert samples(*out, *options).code == 0
    before = (tmp_path / "x.npz").read_bytes()
    ran = samples(*out, "--rule", "share", *options)
    assert ran.code != 0
    assert "rule is '' there, 'share' here" in ran.err
    assert (tmp_path / "x.npz").read_bytes() == before
    assert zipfile.is_zipfile(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("-g", "3", "--rule", "cfg,share"), "bench sample takes one --rule, got cfg, share."),
        (("--rule", "share"), "At guidance 1 no rule acts: give another --guidance for 'share'."),
        (("-g", "3", "--rule", "shore"), "Unknown guidance rule 'shore'."),
        (("-g", "3", "--knob", "share.share=1"), "There are knobs for the rule 'share'"),
    ],
)
def test_sample_mistake_is_one_sentence(options, given, error):
    ran = samples(*given, *options)
    assert ran.code == 2
    assert error in ran.err
    assert ran.err.count("\n") == 1


def test_method_with_own_guidance_takes_no_rule(trained, options):
    where = (*options[:4], "--results", trained)
    for method, why in (
        ("igct", "takes no rule, because its guidance is learnt"),
        ("ct", "takes no guidance"),
    ):
        ran = bench("sample", "-m", method, "-g", "3", "--rule", "share", *where)
        assert ran.code == 2
        assert f"Error: --rule share: {method} {why}" in ran.err
