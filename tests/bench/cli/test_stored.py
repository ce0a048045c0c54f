"""`bench list runs|rows|experiments`, `bench rm` and `bench mv`, on rows without any training."""

from __future__ import annotations

import json
import shutil

import pytest

from bench.experiment import stored
from bench.experiment.inversion_rows import read_inversions
from bench.experiment.place import Experiment
from bench.experiment.rows import read_rows, write_row
from bench.system.leases import try_lease
from tests.bench.helpers import bench
from tests.bench.report.factory import row, value
from tests.bench.report.test_inversions import few

CARD = {"dataset": "digits", "preset": "digits", "config": {"a": 1.5}, "seed": 3}


def add_run(experiment, name, method, **more):
    folder = experiment.runs / name
    folder.mkdir(parents=True)
    card = {"name": name, "method": method, **CARD, "init_run": "", "teacher_run": "", **more}
    (folder / "run.json").write_text(json.dumps(card))
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def place(tmp_path):
    """An experiment "default" with the runs a of edm, and b of ct that a teaches."""
    experiment = Experiment(tmp_path / "results", "default")
    add_run(experiment, "a", "edm", train={"iterations": 1200})
    add_run(experiment, "b", "ct", teacher_run="a")
    for name, method in (("a", "edm"), ("b", "ct")):
        for g in (1.0, 2.0, 10.0):
            key = f"{name}{g:g}x".ljust(64, "0")
            found = row("digits", method, g, value("fd", g), run=name, key=key)
            write_row(experiment.cells, found.model_copy(update={"experiment": "default"}))
    ruled = row("digits", "edm", 2.0, value("fd", 3.0), run="a", rule="apg", key="f" * 64)
    write_row(experiment.cells, ruled.model_copy(update={"experiment": "default"}))
    for i, one in enumerate(few()):
        mine = one.model_copy(update={"run": "a", "experiment": "default", "key": f"{i}" * 64})
        write_row(experiment.inversions, mine)
    (experiment.tuned / "a").mkdir(parents=True)
    (experiment.tuned / "a" / "apg.json").write_text('{"run": "a"}')
    return experiment


def run(experiment, *words):
    return bench(*words, "--results", experiment.results)


def keys(experiment):
    return {found.run + found.rule: found.run for found in read_rows(experiment.cells)}


def test_runs_rows_and_experiments_are_listed(place):
    runs = run(place, "list", "runs").out.splitlines()
    assert [line.split() for line in runs] == [
        ["a", "edm", "on", "digits,", "seed", "3", "trained,", "1,200", "iterations", "4", "rows"],
        ["b", "ct", "on", "digits,", "seed", "3", "trained", "3", "rows"],
    ]
    rows = run(place, "list", "rows", "--run", "a").out.splitlines()
    shown = [line.split("n = ")[0].split() for line in rows]
    assert [line[:5] for line in shown] == [
        *(["a", "cfg", "g", "=", scale] for scale in ("1", "2", "10")),
        ["a", "apg", "g", "=", "2"],
    ]
    assert run(place, "list", "experiments").out.split() == ["default", "2", "runs", "7", "rows"]
    assert run(place, "list", "rows", "-e", "other").out == "There are no rows.\n"
    (place.runs / "b" / "model.safetensors").unlink()
    assert "unfinished" in run(place, "list", "runs", "-m", "ct").out


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (["a"], 3),
        (["--method", "edm", "--rule", "apg"], 6),
        (["-g", "2..13"], 2),
        (["-g", "2", "-m", "ct"], 6),
        (["--seeds", "0", "--status", "ok", "b"], 4),
    ],
)
def test_rows_are_removed_by_filters(place, chosen, left):
    ran = run(place, "rm", "rows", *chosen, "--yes")
    assert ran.code == 0, ran.err
    assert len(read_rows(place.cells)) == left
    assert {path.name for path in place.runs.iterdir()} == {"a", "b"}
    assert not (place.root / stored.TRASH).exists()


def test_run_is_removed_with_all_that_was_made_from_it(place):
    assert run(place, "rm", "runs", "a", "--yes").code == 0
    assert {path.relative_to(place.root).as_posix() for path in place.root.glob("*/*")} == {
        "runs/b",
        "cells/b",
    }


def test_kinds_are_named_in_the_singular_and_plural(place):
    assert run(place, "list", "run").out == run(place, "list", "runs").out
    assert run(place, "mv", "runs", "a", "c").code == 0
    assert run(place, "rm", "row", "c", "--yes").code == 0
    assert {found.run for found in read_rows(place.cells)} == {"b"}
    assert run(place, "rm", "run", "c", "--yes").code == 0
    assert run(place, "mv", "experiments", "default", "new").code == 0
    assert [path.name for path in (place.results / "new" / "runs").iterdir()] == ["b"]
    assert run(place, "rm", "experiment", "new", "--yes").code == 0
    assert not list(place.results.glob("new"))


def test_experiment_is_removed(place):
    add_run(Experiment(place.results, "other"), "a", "edm")
    assert run(place, "rm", "experiments", "default", "-y").code == 0
    assert {path.name for path in place.results.iterdir()} == {"other"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rows"], "Name the rows, or choose them"),
        (["runs"], "Name the runs, or choose them"),
        (["runs", "c"], "Unknown run 'c'"),
        (["runs", "a", "--rule", "apg"], "are for rows"),
        (["rows", "--status", "good"], "Unknown status 'good'"),
        (["rows", "-g", "7"], "No such rows"),
        (["cells", "a"], "Unknown kind to remove 'cells'"),
        (["a"], "Type it before the names: bench rm runs a."),
        (["experiments", "defaul"], "Did you mean 'default'?"),
        (["runs", "a"], "add --yes"),
    ],
)
def test_nothing_is_removed_by_mistake(place, words, said):
    before = sorted(place.root.rglob("*"))
    ran = run(place, "rm", *words, *(["--yes"] if said != "add --yes" else []))
    assert ran.code
    assert said in ran.err
    assert sorted(place.root.rglob("*")) == before


def test_running_training_is_neither_removed_nor_renamed(place):
    lease = try_lease(place.runs / "a" / ".lease")
    for words in (("rm", "runs", "a", "--yes"), ("mv", "run", "a", "c")):
        ran = run(place, *words)
        assert (ran.code, "Another process is training 'a'" in ran.err) == (1, True)
    lease.release()
    assert run(place, "rm", "runs", "a", "--yes").code == 0


def check_renamed(place):
    rows = read_rows(place.cells)
    assert sorted({found.run for found in rows}) == ["b", "c"]
    assert sorted(found.values[0].value for found in rows) == [1, 1, 2, 2, 3, 10, 10]
    assert {found.run for found in read_inversions(place.inversions)} == {"c"}
    assert json.loads((place.tuned / "c" / "apg.json").read_text()) == {"run": "c"}
    cards = {p.parent.name: json.loads(p.read_text()) for p in place.runs.glob("*/run.json")}
    assert cards.keys() == {"b", "c"}
    assert (cards["c"]["name"], cards["c"]["config"]) == ("c", {"a": 1.5})
    assert cards["b"]["teacher_run"] == "c"


def test_run_is_renamed_everywhere(place):
    assert run(place, "mv", "run", "a", "c").code == 0
    check_renamed(place)


def moments(monkeypatch, place, command, check):
    """Interrupt the command at every write and every rename, then run it to the end."""
    fresh = shutil.copytree(place.results, place.results.with_name("fresh"))
    for at in range(100):
        shutil.rmtree(place.results)
        shutil.copytree(fresh, place.results)
        count = 0

        def interrupt(real):
            def call(*args):
                nonlocal count
                count += 1
                if count > at:  # noqa: B023
                    raise KeyboardInterrupt
                return real(*args)

            return call

        with monkeypatch.context() as patch:
            for owner, name in (
                (stored, "write_row"),
                (stored, "write_text"),
                (stored.Path, "rename"),
            ):
                patch.setattr(owner, name, interrupt(getattr(owner, name)))
            ended = run(place, *command).code
        assert run(place, *command).code == (0 if ended else 2)
        check()
        if ended == 0:
            return at
        assert ended == 130
    raise AssertionError("the command never ended")


def test_interrupted_renaming_of_a_run_continues(place, monkeypatch):
    command = ("mv", "run", "a", "c")
    assert moments(monkeypatch, place, command, lambda: check_renamed(place)) > 10


def test_interrupted_renaming_of_an_experiment_continues(place, monkeypatch):
    other = Experiment(place.results, "new")

    def check():
        rows = [*read_rows(other.cells), *read_inversions(other.inversions)]
        assert [found.experiment for found in rows] == ["new"] * 9
        assert not place.root.exists()

    assert moments(monkeypatch, place, ("mv", "experiment", "default", "new"), check) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "a", "b"), "The name 'b' is taken by"),
        (("run", "x", "c"), "Unknown run 'x'"),
        (("run", "a", "../c"), "cannot be a folder"),
        (("run", "a", "a"), "is the old one"),
        (("experiment", "x", "c"), "Unknown experiment 'x'"),
        (("experiment", "default", "cache"), "is taken"),
        (("rows", "a", "b"), "Unknown kind to rename"),
        (("a", "c"), "Type it before the names: bench mv run a c."),
        (("run", "a"), "Type the new name after the old one: bench mv run a NEW."),
    ],
)
def test_renaming_is_refused_with_a_reason(place, words, said):
    before = sorted(place.root.rglob("*"))
    ran = run(place, "mv", *words)
    assert ran.code
    assert said in ran.err
    assert sorted(place.root.rglob("*")) == before
