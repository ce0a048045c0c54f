"""The functions of `import bench` against the commands and the files."""

import inspect
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.main import get_command

import bench
from bench import api
from bench.cli import options
from bench.cli.app import app
from bench.data.find import find_dataset
from bench.experiment.rows import read_rows
from bench.system import progress
from tests.bench.helpers import TINY
from tests.bench.helpers import bench as run

COMMANDS = get_command(app).commands


def test_import_is_light_and_lists_the_functions():
    code = """
import sys, bench
heavy = {"torch", "numpy", "pandas", "typer", "rich", "pydantic"} & set(sys.modules)
assert not heavy, heavy
assert callable(bench.sweep) and callable(bench.report)
from bench.sweep.plan import plan_sweeps
assert callable(bench.sweep) and bench.sweep.plan.plan_sweeps is plan_sweeps
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"evaluate", "load", "report", "sweep", "train", "UserError"} == set(bench.__all__)
    with pytest.raises(AttributeError, match="swep"):
        _ = bench.swep


@pytest.mark.parametrize("name", ["train", "sweep", "report"])
def test_function_takes_the_options_of_its_command(name):
    own = inspect.signature(getattr(bench, name)).parameters
    options = [param.name for param in COMMANDS[name].params if param.name != "help"]
    assert list(own) == options
    with pytest.raises(TypeError, match="nothing"):
        getattr(bench, name)(nothing=1)


def test_values_become_the_words_of_a_command_line():
    given = {
        "guidance": [1, 1.5], "seeds": range(3), "method": "edm", "run": ["a", "b"],
        "knob": {"apg.eta": 0.5, "apg.on": True}, "tuned": True, "inversion": False,
        "samples": 20, "steps": None, "results": "there",
    }  # fmt: skip
    words = list(api._words(COMMANDS["sweep"].params, given))
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    assert pairs["--guidance"] == "1,1.5"
    assert pairs["--seeds"] == "0,1,2"
    joined = " ".join(words)
    for part in (
        "--method edm", "--run a --run b", "--knob apg.eta=0.5 --knob apg.on=true", "--tuned",
        "--samples 20", "--results there",
    ):  # fmt: skip
        assert part in joined
    assert "--steps" not in joined
    assert "inversion" not in joined
    assert list(api._words(COMMANDS["evaluate"].params, {"orient": False})) == ["--no-orient"]


@pytest.mark.usefixtures("empty_figures")
def test_commands_run_and_return_their_places(tmp_path):
    before = list(sys.argv)
    place = bench.train(
        method=["oracle", "ct"], dataset="modes1d", results=tmp_path,
        setting=dict(pair.split("=") for pair in TINY),
    )  # fmt: skip
    assert place.root == tmp_path / "default"
    assert (place.runs / "modes1d-ct-s0").is_dir()
    assert bench.sweep(guidance=[1], samples=20, metric="w1", results=tmp_path) == place
    found = bench.load(place)
    assert set(found.frame["method"]) == {"oracle", "ct", "real"}
    page = bench.report(results=tmp_path)
    assert page == place.report / "index.html"
    assert page.is_file()
    assert sys.argv == before


def test_workers_get_the_command_line_of_the_call():
    seen = []

    def stop(*_args, **_more):
        seen.append(list(sys.argv))
        raise bench.UserError("stop")

    with mock.patch.object(options, "begin", stop), pytest.raises(bench.UserError, match="stop"):
        bench.train(method=["oracle"], seed=3)
    assert seen == [["bench", "train", "--method", "oracle", "--seeds", "3"]]


def test_mistakes_raise_the_message_of_the_command(tmp_path):
    for given, words in (
        ({"guidance": "x"}, ["-g", "x"]),
        ({"samples": 1}, ["-n", "1"]),
        ({"method": ["nope"]}, ["-m", "nope"]),
    ):
        with pytest.raises(bench.UserError) as caught:
            bench.sweep(**given, results=tmp_path)
        printed = run("sweep", *words, "--results", tmp_path)
        assert printed.code == caught.value.code
        assert printed.err.strip() == f"Error: {caught.value}"
    with pytest.raises(bench.UserError, match="no rows"):
        bench.load("other", tmp_path)


def test_load_gives_every_value_of_the_rows_and_no_empty_rule(swept):
    frame, rows = bench.load(results=swept)
    stored = {row.key: row for row in read_rows(swept / "default" / "cells")}
    assert {row.key for row in rows} == set(stored)
    assert list(frame.columns) == list(api.COLUMNS)
    expected = {
        (k, row.guidance, value.metric): value.value
        for k, row in enumerate(rows)
        for value in stored[row.key].values
    }
    measured = frame[frame["value"].notna()]
    keys = zip(measured["row"], measured["guidance"], measured["metric"], strict=True)
    assert dict(zip(keys, measured["value"], strict=True)) == expected
    assert frame.groupby("rule").size().sum() == len(frame)
    rules = frame.groupby("method")["rule"].unique().map(list).to_dict()
    guided = {"edm": ["cfg"], "oracle": ["cfg"], "igct": ["embedded"]}
    assert rules == guided | {"ct": ["none"], "real": ["none"]}
    assert set(frame["status"]) == {"ok", "skip"}


def test_rule_of_a_method_without_its_plugin_is_unknown():
    assert api._without_rule("of-a-plugin") == "unknown"


@pytest.fixture
def digits():
    split = find_dataset("digits").reference
    return split.samples[:120].numpy(), split.labels[:120].numpy()


def test_arrays_tensors_and_files_are_measured_alike(digits, judged, tmp_path):
    images, labels = digits
    results = tmp_path / "results"
    (results / "cache").mkdir(parents=True)
    for file in judged.iterdir():
        (results / "cache" / file.name).write_bytes(file.read_bytes())
    np.savez(tmp_path / "x.npz", arr_0=images.transpose(0, 2, 3, 1), arr_1=labels)
    for k, image in enumerate(images):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(tmp_path / "folder" / f"{k:04}.png")
    forms = [
        (images, labels),
        (torch.from_numpy(images), torch.from_numpy(labels)),
        (images.transpose(0, 2, 3, 1), list(labels)),
        (images[:, 0], labels),
        (tmp_path / "x.npz", None),
    ]
    metrics = ["fd", "class_accuracy", "saturation"]
    found = [
        bench.evaluate(samples, "digits", metrics, labels=given, results=results)
        for samples, given in forms
    ]
    values = [[(row.metric, row.value, row.samples_hash) for row in one.rows] for one in found]
    assert len(values[0]) == 3
    for other in values[1:4]:
        assert other == values[0]
    for (_, value, hashed), (_, expected, known) in zip(values[4], values[0], strict=True):
        # An npz is read as (n, H, W, C), which convolutions sum in another order.
        assert (value, hashed) == (pytest.approx(expected, rel=1e-6), known)
    assert list(found[0].frame["value"]) == [row.value for row in found[0].rows]
    assert "FD classifier @120" in found[0]._repr_html_()
    folder = bench.evaluate(tmp_path / "folder", "digits", ["fd"], results=results)
    assert folder.rows[0].value == found[0].rows[0].value


def test_arrays_are_a_reference_and_vectors_are_measured_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(400, 2)), rng.normal(1, 2, size=(300, 2))
    found = bench.evaluate(fake, real, ["fd"], results=tmp_path)
    one, two = np.cov(fake.T.astype(np.float32)), np.cov(real.T.astype(np.float32))
    gap = fake.mean(0) - real.mean(0)
    root = np.sqrt(np.linalg.eigvals(one @ two).astype(complex)).sum().real
    expected = gap @ gap + np.trace(one) + np.trace(two) - 2 * root
    # Vectors are stored as float32, which has 7 digits.
    assert found.rows[0].value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.rand(4, 3, 8, 8) * 2 - 1, "uint8 from 0 to 255"),
        (np.zeros((4, 8, 8, 2), np.uint8), r"shape \(4, 8, 8, 2\)"),
        (np.zeros((1, 8, 8), np.uint8), "at least 2"),
    ],
)
def test_unusable_array_is_refused(given, message, tmp_path):
    with pytest.raises(bench.UserError, match=message):
        bench.evaluate(given, "digits", results=tmp_path)


def test_labels_are_checked(digits, tmp_path):
    images, labels = digits
    with pytest.raises(bench.UserError, match="labels of the samples"):
        bench.evaluate(images, "digits", labels=labels[:3], results=tmp_path)
    with pytest.raises(bench.UserError, match="Labels are for arrays"):
        bench.evaluate("digits:train", "digits", labels=labels, results=tmp_path)


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_move_in_a_notebook_with_ipywidgets(widgets):
    console = Console(force_jupyter=True)
    with mock.patch.object(progress, "find_spec", return_value=object() if widgets else None):
        assert (progress.Reporter(console)._live is not None) == widgets
