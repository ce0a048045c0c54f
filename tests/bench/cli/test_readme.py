"""The method in the README is taken from there word by word, and used as a reader would."""

import csv
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from bench.experiment.rows import read_rows
from bench.plugins.conformance import MethodConformance
from tests.bench.helpers import bench

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    "bench train --plugin flow.py --method flow --dataset modes1d",
    "bench sweep --plugin flow.py",
    "bench report",
)
SHORT = {"train": ["--set", "train.iterations=40"], "sweep": ["-g", "1,3", "-n", "60"]}


RULE_COMMANDS = (
    "bench sweep --plugin decay.py --method oracle --dataset modes1d --rule cfg,decay "
    "--knob decay.power=2",
    "bench tune --plugin decay.py --method oracle --dataset modes1d --rule decay",
    "bench sweep --plugin decay.py --method oracle --dataset modes1d --rule cfg,decay --tuned",
    "bench report",
)
RULE_SHORT = {"tune": ["--budget", "3", "-n", "60"], "sweep": ["-g", "1,3", "-n", "60"]}


def example(name="flow") -> str:
    found = re.search(rf"<!-- example: {name}\.py -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_example_is_short():
    assert len([line for line in example().splitlines() if line.strip()]) < 40


@pytest.mark.usefixtures("empty_figures")
def test_example_trains_sweeps_and_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.py").write_text(example())
    for command in COMMANDS:
        assert command in README
        _, name, *rest = command.split()
        ran = bench(name, *rest, *SHORT.get(name, []))
        assert ran.code == 0, ran.err
    report = tmp_path / "results" / "default" / "report"
    with (report / "summary.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "flow"]
    assert {(row["guidance"], row["nfe"]) for row in rows} == {("1.0", "20"), ("3.0", "40")}
    assert {"w1", "shift", "fd"} <= {row["metric"] for row in rows}
    assert "flow, 20 steps" in (report / "tables-modes1d.md").read_text()
    listed = bench("list", "methods", "--plugin", "flow.py")
    assert re.search(r"flow\s+rectified flow, Euler steps, CFG\s+\(file flow\.py\)", listed.out)


def imported(folder, name):
    path = folder / f"{name}.py"
    path.write_text(example(name))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_passes_the_battery(tmp_path):
    module = imported(tmp_path, "flow")

    class Battery(MethodConformance):
        method, preset = module.Flow, "modes1d"

    names = [name for name in dir(Battery) if name.startswith("test_")]
    assert len(names) >= 10
    for name in names:
        getattr(Battery(), name)()


def test_rule_is_short():
    assert len(example("decay").splitlines()) < 30


@pytest.mark.usefixtures("empty_figures")
def test_rule_sweeps_is_tuned_and_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decay.py").write_text(example("decay"))
    for command in RULE_COMMANDS:
        assert command in README
        _, name, *rest = command.split()
        ran = bench(name, *rest, *RULE_SHORT.get(name, []))
        assert ran.code == 0, ran.err
    rows = [r for r in read_rows(tmp_path / "results" / "default" / "cells") if r.rule]
    assert {(r.rule, r.guidance, r.knobs_from) for r in rows} == {
        ("decay", 3.0, "suite"),
        ("decay", 3.0, "tuned"),
    }
    powers = {row.knobs_from: row.knobs["decay.power"] for row in rows}
    assert powers["suite"] == 2.0
    assert 0.1 <= powers["tuned"] <= 4.0
    report = (tmp_path / "results" / "default" / "report" / "tables-modes1d.md").read_text()
    assert "oracle + decay (power=2.0), 18 steps" in report
    assert "oracle + decay (tuned), 18 steps" in report
    listed = bench("list", "rules", "--plugin", "decay.py")
    assert re.search(
        r"decay\s+guidance that fades over the steps\s+power=1\s+\(file decay\.py\)", listed.out
    )


def test_rule_passes_the_battery(tmp_path):
    conformance = importlib.import_module("bench.rule_conformance")
    module = imported(tmp_path, "decay")

    class Battery(conformance.RuleConformance):
        rule = module.Decay

    names = [name for name in dir(Battery) if name.startswith("test_")]
    assert len(names) >= 8
    for name in names:
        getattr(Battery(), name)()
