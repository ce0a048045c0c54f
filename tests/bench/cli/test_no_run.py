"""A command that finds no run names the command that trains one in the same experiment."""

import re
import shlex

import pytest

from bench.experiment.place import Experiment
from bench.sweep import trainings
from tests.bench.helpers import bench

SUITE = """
experiment = "of-the-suite"
[[study]]
dataset = "modes1d"
methods = ["edm"]
rules = ["cfg", "apg"]
"""


@pytest.fixture
def trained(monkeypatch):
    """(method, data set, experiment) of all that is trained; nothing is."""
    found = []

    def train(requests, trainer):
        found.extend((r.method, r.data.name, trainer.experiment) for r in requests)

    monkeypatch.setattr(trainings, "train_all", train)
    return found


def next_command(ran, name):
    """Arguments of the command that an error names."""
    assert ran.code in (1, 2), ran.out
    return shlex.split(re.search(rf"bench ({name}\b.*)\.\n", ran.err).group(1))


@pytest.mark.parametrize(
    ("arguments", "method", "data"),
    [
        (["sample"], "igct", "digits"),
        (["sample", "--run", "mine"], "igct", "digits"),
        (["sample", "-m", "edm", "-d", "modes1d"], "edm", "modes1d"),
        (["sweep"], "igct", "digits"),
        (["sweep", "--run", "mine"], "igct", "digits"),
        (["sweep", "-m", "edm", "-d", "modes1d"], "edm", "modes1d"),
        (["invert"], "igct", "digits"),
        (["invert", "--run", "mine"], "igct", "digits"),
        (["invert", "-m", "ct", "-d", "digits"], "ct", "digits"),
        (["edit", "--source-class", "1", "--target-class", "2"], "igct", "digits"),
        (["tune", "--rule", "apg"], "edm", "digits"),
        (["tune", "--rule", "apg", "-m", "edm", "-d", "modes1d"], "edm", "modes1d"),
    ],
)
@pytest.mark.parametrize("name", ["default", "mine"])
def test_suggested_command_trains_in_the_same_experiment(
    arguments, method, data, name, tmp_path, trained
):
    experiment = Experiment(tmp_path / "some results", name)
    ran = bench(*arguments, "--experiment", name, "--results", experiment.results)
    assert bench(*next_command(ran, "train")).code == 0
    assert trained == [(method, data, experiment)]


@pytest.mark.parametrize("given", [None, "mine"])
@pytest.mark.parametrize("command", ["sweep", "tune"])
def test_suggested_suite_command_trains_in_the_same_experiment(command, given, tmp_path, trained):
    path = tmp_path / "a suite.toml"
    path.write_text(SUITE)
    experiment = Experiment(tmp_path / "r", given or "of-the-suite")
    own = ("--experiment", given) if given else ()
    ran = bench(command, "--suite", path, *own, "--results", experiment.results)
    assert bench(*next_command(ran, "train")).code == 0
    assert trained == [("edm", "modes1d", experiment)]


@pytest.mark.parametrize("command", ["verify", "report"])
def test_command_without_rows_suggests_sweep_of_the_same_experiment(command, tmp_path):
    ran = bench(command, "--experiment", "mine", "--results", tmp_path)
    assert next_command(ran, "sweep") == [
        "sweep", "--experiment", "mine", "--results", str(tmp_path)
    ]  # fmt: skip
