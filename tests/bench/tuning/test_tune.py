import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.find import find_dataset
from bench.experiment.rows import read_rows, write_row
from bench.experiment.suite import TUNING_SEEDS
from bench.sweep.generate import generate
from bench.training.card import make_card, make_method
from bench.tuning.request import TuningReference
from bench.tuning.store import read_result
from bench.tuning.target import NoTarget, make_target
from bench.tuning.tune import TrialWork
from methods import Guidance
from methods.oracle import Oracle
from methods.rules import RULES, make_rule
from metrics.base import ExactMixture
from metrics.toy import class_w1
from tests.bench.helpers import bench, contents, rows_of
from tests.bench.tuning.helpers import EARLY, SHARE, plugin
from tests.processes import STARTS

ORACLE = ("--method", "oracle", "--dataset", "modes1d")
QUICK = (*ORACLE, "-g", "3,6", "-n", "60", "--aim", "metric")
RUN = "modes1d-oracle-s0"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def share(tmp_path, place):
    return ("--plugin", plugin(tmp_path, SHARE), "--results", place)


def tuned(place, rule="share", run=RUN):
    return read_result(place / "default" / "tuned" / run / f"{rule}.json")


def same(trials):
    return [trial.model_copy(update={"seconds": 0.0, "created": ""}) for trial in trials]


def test_tune_finds_better_knobs(share, place):
    ran = bench("tune", "--rule", "share", "--budget", "10", *QUICK, *share)
    assert (ran.code, ran.err) == (0, "")
    found = tuned(place)
    # Guidance moves the exact denoiser's samples off the data: none at all is the best share.
    assert found.knobs["share.share"] < 0.15
    assert found.knobs["share.unused"] == 3
    assert found.trials[0].knobs["share.share"] == 0.8
    assert found.score == min(t.score for t in found.trials) < found.default_score
    assert "geometric mean of w1 over g = 3, 6" in ran.out
    assert "Next: bench sweep --rule cfg,share --tuned --method oracle" in ran.out


def test_trials_measure_samples_of_reserved_seeds(share, place):
    assert bench("tune", "--rule", "share", "--budget", "2", *QUICK, *share).code == 0
    found = tuned(place)
    assert found.aim.seed == TUNING_SEEDS
    data = find_dataset("modes1d")
    # Nothing that a report measures against has a say.
    assert found.aim.reference == "modes1d/train"
    assert found.aim.reference_hash == TuningReference(data).reference.hash
    method = make_method(make_card("oracle", data=data), data)
    mixture = data.spec.mixture
    exact = ExactMixture(tuple(np.asarray(m, dtype=float) for m in mixture.means), mixture.std)
    for trial in found.trials:
        rule = make_rule("share", {"share": {"share": trial.knobs["share.share"]}})
        for entry in trial.values:
            stream = generate(
                method, method.build(), Guidance(entry.guidance, rule), 18, TUNING_SEEDS, 60,
                batch=60, device=torch.device("cpu"),
            )  # fmt: skip
            ((x, labels),) = stream
            expected = class_w1(x.double().numpy(), labels.numpy(), exact)
            # Batches of another size are summed in another order, in float64.
            assert entry.value == pytest.approx(expected, rel=1e-5)
    block = bench("tune", "--rule", "share", "--budget", "1", "--seed-block", "4", *QUICK, *share)
    assert block.code == 0
    other = tuned(place)
    assert other.aim.seed == TUNING_SEEDS + 4
    assert other.trials[0].values != found.trials[0].values


def test_tune_with_a_larger_budget_resumes(share, place, tmp_path):
    assert bench("tune", "--rule", "share", "--budget", "4", *QUICK, *share).code == 0
    before = contents(place / "default" / "tuned" / RUN / "share")
    assert len(before) == 4
    assert bench("tune", "--rule", "share", "--budget", "9", *QUICK, *share).code == 0
    after = contents(place / "default" / "tuned" / RUN / "share")
    assert len(after) == 9
    assert before.items() <= after.items()
    once = (*share[:2], "--results", tmp_path / "once")
    assert bench("tune", "--rule", "share", "--budget", "9", *QUICK, *once).code == 0
    assert same(tuned(tmp_path / "once").trials) == same(tuned(place).trials)
    # A smaller budget forgets nothing.
    assert bench("tune", "--rule", "share", "--budget", "2", *QUICK, *share).code == 0
    assert len(tuned(place).trials) == 9


def test_interrupted_search_keeps_finished_trials_and_resumes(share, place, monkeypatch):
    plain = TrialWork.compute

    def stopped(self, *rest):
        if self.index == 2:
            raise KeyboardInterrupt
        return plain(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TrialWork, "compute", stopped)
        ran = bench("tune", "--rule", "share", "--budget", "4", *QUICK, *share)
    assert ran.code == 130
    folder = place / "default" / "tuned" / RUN
    kept = contents(folder / "share")
    assert [name[-9:] for name in sorted(kept)] == ["0000.json", "0001.json"]
    assert not (folder / "share.json").exists()
    assert bench("tune", "--rule", "share", "--budget", "4", *QUICK, *share).code == 0
    assert kept.items() <= contents(folder / "share").items()
    assert len(tuned(place).trials) == 4


@STARTS
def test_two_processes_share_the_trials_of_a_search(tmp_path, place, starts):
    log = tmp_path / "log"
    logged = SHARE.replace(
        "return 1 +",
        f"""import os
            with open({str(log)!r}, "a") as file:
                file.write(f"{{os.getpid()}} {{self.knobs.share}}\\n")
            return 1 +""",
    )
    options = ("--rule", "share", "--budget", "12", *QUICK, "--plugin", plugin(tmp_path, logged))
    both = [starts("tune", *options, "--results", place) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    found = tuned(place)
    assert [trial.status for trial in found.trials] == ["ok"] * 12
    owners = {tuple(line.split()) for line in log.read_text().splitlines()}
    # Registering the plugin calls the rule with its defaults, in every process.
    owners = {(pid, share) for pid, share in owners if share != "0.8"}
    assert len(owners) == len({share for _, share in owners}) == 11
    assert not [path for path in place.rglob("*") if path.name.startswith(".")]
    assert bench("tune", *options, "--results", tmp_path / "alone").code == 0
    assert same(tuned(tmp_path / "alone").trials) == same(found.trials)


def test_search_halves_batches_that_do_not_fit_into_memory(share, place, tmp_path, monkeypatch):
    real = Oracle.sample

    def little_memory(self, nets, labels, *args):
        if len(labels) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, nets, labels, *args)

    tune = ("tune", "--rule", "share", "--budget", "2", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(Oracle, "sample", little_memory)
        ran = bench(*tune, "--batch", "60", *share)
    assert ran.code == 0, ran.err
    assert "trial 1: out of memory; continuing with batches of 15" in ran.out
    assert ran.out.count("out of memory") == 2
    assert bench(*tune, *share[:2], "--results", tmp_path / "whole").code == 0
    whole = tuned(tmp_path / "whole")
    assert [t.score for t in tuned(place).trials] == pytest.approx([t.score for t in whole.trials])


def test_failed_trial_is_counted_and_tried_again(tmp_path, place):
    switch = tmp_path / "broken"
    broken = SHARE.replace(
        "return 1 +",
        f"""import pathlib
            if self.knobs.share < 0.5 and pathlib.Path({str(switch)!r}).exists():
                raise ValueError("too small a share")
            return 1 +""",
    )
    options = ("--plugin", plugin(tmp_path, broken), "--results", place)
    switch.touch()
    ran = bench("tune", "--rule", "share", "--budget", "6", *QUICK, *options)
    assert ran.code == 0
    failed = [trial.index for trial in tuned(place).trials if trial.status == "failed"]
    assert failed
    assert f"{len(failed)} of which failed or diverged" in ran.out
    assert tuned(place).knobs["share.share"] >= 0.5
    switch.unlink()
    assert bench("tune", "--rule", "share", "--budget", "6", *QUICK, *options).code == 0
    again = tuned(place)
    assert {trial.status for trial in again.trials} == {"ok"}
    assert again.best in failed


def test_tune_writes_no_result_if_every_trial_fails(tmp_path, place):
    broken = SHARE.replace(
        "def scale(self, g, at):",
        "def weigh(self, g, c, r, call):\n            return g if call.dry else [][0]",
    )
    options = ("--plugin", plugin(tmp_path, broken), "--results", place)
    ran = bench("tune", "--rule", "share", "--budget", "2", *QUICK, *options)
    assert ran.code == 1
    assert "No trial of modes1d-oracle-s0, share could be measured" in ran.err
    assert "IndexError" in ran.err
    assert not (place / "default" / "tuned" / RUN / "share.json").exists()


def test_sweep_uses_tuned_knobs(share, place):
    tune = ("--rule", "share", "--budget", "3", *QUICK)
    sweep = ("sweep", *ORACLE, "-g", "1,4", "-n", "50", "--metric", "w1", *share)
    early = bench(*sweep, "--rule", "cfg,share", "--tuned")
    assert early.code == 0
    line = f"{RUN}: rule share runs untuned, since bench tune has not finished for it."
    assert line in early.out.splitlines()
    assert bench("tune", *tune, *share).code == 0
    ran = bench(*sweep, "--rule", "cfg,share", "--tuned")
    assert ran.code == 0
    assert "untuned" not in ran.out
    rows = [r for r in rows_of(place, "oracle") if r.rule == "share"]
    assert {row.knobs_from for row in rows} == {"default", "tuned"}
    (row,) = (row for row in rows if row.knobs_from == "tuned")
    assert row.knobs == tuned(place).knobs
    assert row.guidance == 4.0
    # Knobs that are given stay as they are.
    assert bench(*sweep, "--rule", "share", "--tuned", "--knob", "share.share=0.3").code == 0
    (given,) = (r for r in rows_of(place, "oracle") if r.knobs_from == "suite")
    assert given.knobs["share.share"] == 0.3


def test_changed_rule_makes_the_result_stale(share, place, tmp_path):
    assert bench("tune", "--rule", "share", "--budget", "2", *QUICK, *share).code == 0
    del RULES["share"]
    changed = plugin(tmp_path, SHARE.replace("(g - 1) *", "(g - 1) * 0.5 *"), "changed.py")
    ran = bench("sweep", *ORACLE, "-g", "4", "-n", "50", "--metric", "w1", "--rule", "share",
                "--tuned", "--plugin", changed, "--results", place)  # fmt: skip
    assert ran.code == 0
    assert (
        "share runs untuned, since it was tuned before these changed: code of the rule" in ran.out
    )
    (row,) = (r for r in rows_of(place, "oracle") if r.rule == "share")
    assert row.knobs_from == "default"


def test_other_weights_make_the_result_stale(trained, tmp_path):
    options = ("--plugin", plugin(tmp_path, SHARE), "--results", trained, "--steps", "3")
    ran = bench("tune", "--rule", "share", "--budget", "2", "-g", "3", "-n", "40", *options)
    assert ran.code == 0, ran.err
    assert tuned(trained, run="modes1d-edm-s0").method == "edm"
    sweep = ("sweep", "--method", "edm", "-g", "3", "-n", "40", "--metric", "w1", "--tuned",
             "--rule", "share", "--dry-run", *options)  # fmt: skip
    assert "untuned" not in bench(*sweep).out
    weights = trained / "default" / "runs" / "modes1d-edm-s0" / "model.safetensors"
    save_file({k: v + 1e-3 for k, v in load_file(weights).items()}, weights)
    assert "since it was tuned before these changed: checkpoint" in bench(*sweep).out


def test_damaged_result_gives_a_reason(share, place):
    assert bench("tune", "--rule", "share", "--budget", "1", *QUICK, *share).code == 0
    (place / "default" / "tuned" / RUN / "share.json").write_text("{")
    ran = bench("sweep", *ORACLE, "-g", "4", "--rule", "share", "--tuned", "--dry-run", *share)
    assert ran.code == 0
    assert "share runs untuned, since its result cannot be used" in ran.out


SUITE = """
    [[study]]
    dataset = "modes1d"
    methods = ["oracle"]
    guidance = "4"
    samples = 50
    metrics = ["w1"]
    rules = ["cfg", "share+early", "early"]
    tuned = true
"""


def test_suite_is_tuned_and_swept(tmp_path, place):
    suite = plugin(tmp_path, SUITE, "my.toml")
    options = ("--plugin", plugin(tmp_path, SHARE), "--plugin",
               plugin(tmp_path, EARLY, "early.py"), "--results", place)  # fmt: skip
    ran = bench("tune", "--suite", suite, "--budget", "4", "-g", "3", "-n", "40", *options)
    assert (ran.code, ran.err) == (0, "")
    both, early = tuned(place, "share+early"), tuned(place, "early")
    assert set(both.search) == {"share.share", "early.last"}
    assert len(both.trials) == 4
    assert len(early.trials) == 3  # of three values
    assert "there are no further settings to try" in ran.out
    swept = bench("sweep", "--suite", suite, *options)
    assert swept.code == 0
    rows = {row.rule: row for row in rows_of(place, "oracle")}
    assert rows["share+early"].knobs == both.knobs
    assert rows["early"].knobs_from == "tuned"
    assert rows[""].knobs_from == ""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--rule", "cfg"), "Rule 'cfg' has no knobs to tune; these have: "),
        (("--rule", "shore"), "Unknown guidance rule 'shore'. Did you mean 'share'?"),
        (("--rule", "share", "-g", "1..3"), "No rule acts at guidance 1"),
        (("--rule", "share", "--metric", "shift"), "shift has no better direction"),
        (
            ("--rule", "share", "-m", "igct"),
            "--method igct: igct takes no rule, because",
        ),
        ((), "Say what to tune: --rule NAME (bench list rules) or --suite."),
        (("--rule", "share", "--suite", "demo"), "--suite sets this itself: drop --rule"),
        (("--suite", "demo"), "No rule of the suite 'demo' has knobs to tune"),
        (("--rule", "share", "--budget", "0"), "--budget"),
    ],
)
def test_invalid_tune_options_give_one_sentence(share, place, options, error):
    data = () if "--suite" in options else ("-d", "modes1d")
    ran = bench("tune", *data, *options, *share)
    assert ran.code == 2
    assert error in ran.err
    assert ran.err.count("\n") == 1
    assert not (place / "default" / "tuned").exists()


def test_rule_that_no_run_can_use_is_skipped_with_a_reason(share, place):
    ran = bench("tune", "--rule", "rescale", *QUICK, *share)
    assert ran.code == 1
    assert f"Skipped {RUN}, rescale: rescale needs images" in ran.out
    assert (
        ran.err == "Error: Nothing can be tuned: all runs and rules are skipped, as said above.\n"
    )
    assert not place.joinpath("default").exists()


def test_run_without_equal_outcome_is_left_out(share, place, monkeypatch):
    def fails_on_modes1d(aim, cfg, among):
        if aim.reference.startswith("modes1d"):
            raise NoTarget("CFG's displacement falls.")
        return make_target(aim, cfg, among)

    monkeypatch.setattr("bench.tuning.tune.make_target", fails_on_modes1d)
    options = ("--rule", "share,interval", "-m", "oracle", "-g", "3,6", "-n", "60", "--budget", "1")
    ran = bench("tune", *options, *share, "-d", "modes1d", "-d", "modes2d")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count(f"{RUN} is left out: CFG's displacement falls.") == 1
    assert not (place / "default" / "tuned" / RUN / "share.json").exists()
    assert tuned(place, run="modes2d-oracle-s0").outcome == "displacement"
    ran = bench("tune", *options, *share, "-d", "modes1d")
    assert (ran.code, ran.err) == (1, f"Error: {RUN} is left out: CFG's displacement falls.\n")


def test_tune_without_runs_fails(share):
    ran = bench("tune", "--rule", "share", *share)
    assert ran.code == 1
    assert "Nothing can be tuned in" in ran.err


@pytest.mark.usefixtures("empty_figures")
def test_sweep_and_report_refuse_reserved_seeds(share, place, tmp_path):
    sweep = ("sweep", *ORACLE, "-g", "1", "-n", "50", "--metric", "w1", "--results", place)
    ran = bench(*sweep, "--seeds", f"0,{TUNING_SEEDS}")
    assert ran.code == 2
    assert re.search(r"^Error: Sampling seeds from 1,000,000,000 up are reserved for", ran.err)
    assert not (place / "default").exists()
    suite = plugin(tmp_path, SUITE + f"\n    sampling_seeds = [{TUNING_SEEDS + 7}]", "my.toml")
    ran = bench("sweep", "--suite", suite, *share)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert bench(*sweep).code == 0
    cells = place / "default" / "cells"
    (row,) = (row for row in read_rows(cells) if row.method == "oracle")
    other = row.model_copy(update={"seed": TUNING_SEEDS, "key": "f" * 64})
    write_row(cells, other)
    ran = bench("report", "--results", place)
    assert ran.code == 0
    assert "Left out 1 row whose sampling seeds are reserved for tuning." in ran.out
    tree = json.loads((cells / row.run / f"{'f' * 24}.json").read_text())
    assert tree["seed"] == TUNING_SEEDS


def test_tune_dry_run_counts_remaining_trials(share, place):
    tune = ("tune", "--rule", "share", "--budget", "5", *QUICK, *share)
    line = (
        rf"{RUN}, share: %s trials done, %s to do, of 2 x 60 samples: %s NFE, about \S+ s on cpu\."
    )
    ran = bench(*tune, "--dry-run")
    assert ran.code == 0
    # 60 samples at two scales of 2 * 35 evaluations, five times.
    assert re.search(line % (0, 5, "42,000"), ran.out)
    assert not place.exists()
    assert bench(*tune[:4], "2", *tune[5:]).code == 0
    before = contents(place)
    assert re.search(line % (2, 3, "25,200"), bench(*tune, "--dry-run").out)
    assert contents(place) == before


def test_sample_uses_tuned_knobs(share, place):
    sample = ("sample", *ORACLE, "-n", "8", "-g", "3", "--rule", "share", "--tuned", *share)
    ran = bench(*sample)
    assert ran.code == 0
    assert "share runs untuned" in ran.out
    assert bench("tune", "--rule", "share", "--budget", "2", *QUICK, *share).code == 0
    assert "untuned" not in bench(*sample).out
    files = list((place / "default" / "samples" / RUN).iterdir())
    assert len(files) == 2
    (own,) = (file for file in files if file.name != "g3-share-steps18-seed0.npz")
    with np.load(own) as arrays:
        assert json.loads(str(arrays["about"]))["knobs"] == tuned(place).knobs
