"""Small commands and messages of everyday use."""

from __future__ import annotations

import csv
import shlex

import pytest
import torch
from typer.main import get_command

from bench.cli.app import app
from bench.experiment.place import Experiment
from bench.experiment.rows import write_row
from bench.experiment.suite import read_suite
from tests.bench.helpers import TINY, bench, sets
from tests.bench.report.factory import row, value

COMMANDS = get_command(app).commands
EXAMPLES = {name: c.epilog.removeprefix("Example: bench ") for name, c in COMMANDS.items()
            if c.epilog}  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"data", "stats"}))
def test_example_in_the_help_can_be_typed(name):
    assert f"Example: bench {EXAMPLES[name]}" in " ".join(bench(name, "--help").out.split())
    first, *words = shlex.split(EXAMPLES[name])
    assert first == name
    with COMMANDS[name].make_context(name, words) as context:  # refuses unknown options
        assert not context.args


def test_completion_offers_commands_and_options(monkeypatch):
    for words, offered in (("bench tr", "train"), ("bench train --meth", "--method")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        monkeypatch.setenv("_BENCH_COMPLETE", "complete_bash")
        assert bench().out.split() == [offered]


@pytest.mark.parametrize("option", ["--lr", "--optimizer", "--micro-batch", "--ema_ramp"])
def test_setting_as_an_option_is_answered_with_set(option):
    name = option[2:].replace("-", "_")
    ran = bench("train", "-m", "edm", option, "3")
    assert ran.code == 2
    assert ran.err.endswith(f"It is a setting: --set train.{name}=VALUE.\n")
    assert "--set" not in bench("sweep", option, "3").err


def test_init_writes_a_suite_that_plans(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = bench("init", "my-suite.toml")
    assert (ran.code, ran.err) == (0, "")
    suite = read_suite("my-suite.toml")
    assert (suite.experiment, suite.study[0].guidance) == ("my-suite", (1.0, 4.0, 7.0, 10.0, 13.0))
    assert bench("train", "--suite", "my-suite.toml", "--dry-run").code == 0
    before = (tmp_path / "my-suite.toml").read_bytes()
    for name, said in (
        ("my-suite.toml", "exists already"),
        ("suite.json", "is a .toml file"),
        ("a b.toml", "cannot be a folder"),
    ):
        again = bench("init", name)
        assert again.code == 2
        assert said in again.err
    assert (tmp_path / "my-suite.toml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["my-suite.toml"]


def test_train_takes_several_seeds(tmp_path):
    train = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", tmp_path)
    ran = bench(*train, "--seeds", "0..1")
    assert ran.code == 0, ran.err
    assert {path.name for path in (tmp_path / "default" / "runs").iterdir()} == {
        "modes1d-edm-s0",
        "modes1d-edm-s1",
    }
    assert "trained already" in bench(*train, "--seed", "1").out
    named = bench(*train, "--seeds", "0..1", "--name", "a")
    assert (named.code, "one method and one seed" in named.err) == (2, True)


def test_scales_below_one_are_explained_once(tmp_path):
    words = ("sweep", "-m", "oracle", "-d", "modes1d", "-n", "20", "--dry-run", "--metric", "w1")
    ran = bench(*words, "-g", "0,0.5,2", "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out.count("g = 1 is off") == 1
    assert "Papers that write w = g - 1 call this w = -1; for their w = 0" in ran.out
    assert "g = 1 is off" not in bench(*words, "-g", "1,2", "--results", tmp_path).out
    words = ("sample", "-m", "oracle", "-d", "modes1d", "-n", "4", "-o", tmp_path / "a.npz")
    assert bench(*words, "-g", "0.5", "--results", tmp_path).out.count("g = 1 is off") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_missing_gpu_is_a_sentence(command, tmp_path):
    words = ("-m", "edm", "-d", "modes1d", "--device", "cuda", "--results", tmp_path)
    ran = bench(command, *words)
    assert ran.code == 2
    assert ran.err.startswith("Error: There is no GPU that CUDA can use here: drop --device")
    assert ran.err.count("\n") == 1


@pytest.mark.usefixtures("empty_figures")
def test_experiments_with_the_same_cells_are_told_apart_in_one_report(tmp_path):
    for name, w1 in (("one", 1.0), ("two", 2.0)):
        for g in (1.0, 4.0):  # the rows say "default", as those of a copied folder do
            found = row("modes1d", "edm", g, value("w1", w1 * g), key=f"{g:g}" * 64)
            write_row(Experiment(tmp_path, name).cells, found)
    ran = bench("report", "-e", "one", "-e", "two", "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert "4 rows reported." in ran.out
    with (tmp_path / "one+two" / "report" / "summary.csv").open(newline="") as file:
        lines = {(r["experiment"], r["guidance"]): float(r["value"]) for r in csv.DictReader(file)}
    assert lines == {
        ("one", "1.0"): 1, ("one", "4.0"): 4, ("two", "1.0"): 2, ("two", "4.0"): 8
    }  # fmt: skip
    tables = (tmp_path / "one+two" / "report" / "tables-modes1d.md").read_text()
    assert all(f"{name}/modes1d-edm-s0" in tables for name in ("one", "two"))
    assert bench("list", "experiments", "--results", tmp_path).out.count("2 rows") == 2
    refused = bench("report", "-e", "one", "-e", "two", "--against", "one", "--results", tmp_path)
    assert (refused.code, "drop one --experiment" in refused.err) == (2, True)
