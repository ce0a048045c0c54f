"""The method in the README is taken from there word by word, and used as a reader would."""

import csv
import importlib.util
import re
from pathlib import Path

from bench.conformance import MethodConformance
from tests.bench.helpers import bench

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    "bench train --plugin flow.py --method flow --dataset modes1d",
    "bench sweep --plugin flow.py",
    "bench report",
)
SHORT = {"train": ["--set", "train.iterations=40"], "sweep": ["-g", "1,3", "-n", "60"]}


def example() -> str:
    found = re.search(r"<!-- example: flow\.py -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_is_short():
    assert len([line for line in example().splitlines() if line.strip()]) < 40


def test_the_example_trains_sweeps_and_reports(tmp_path, monkeypatch):
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
    assert "flow, 20 steps" in (report / "tables.md").read_text()
    listed = bench("list", "methods", "--plugin", "flow.py")
    assert re.search(r"flow\s+rectified flow, Euler steps, CFG\s+\(file flow\.py\)", listed.out)


def test_the_example_passes_the_battery(tmp_path):
    path = tmp_path / "flow.py"
    path.write_text(example())
    spec = importlib.util.spec_from_file_location("flow", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Battery(MethodConformance):
        method, preset = module.Flow, "modes1d"

    names = [name for name in dir(Battery) if name.startswith("test_")]
    assert len(names) >= 10
    for name in names:
        getattr(Battery(), name)()
