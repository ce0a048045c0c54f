"""Commands on bad files: non-zero exit code, one sentence, nothing written elsewhere."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.card import CARD, LABELS
from bench.data.find import find_dataset
from bench.experiment.rows import write_row
from bench.training.card import WEIGHTS, make_method, write_card
from bench.training.checkpoint import save_weights
from tests.bench.data.makers import image_tree, write_folder
from tests.bench.helpers import bench, contents, tiny_card
from tests.bench.report.factory import row, value
from tests.hostile import corpus, makers
from tests.hostile.values import broken


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """Run commands in a separate folder; nothing may appear next to it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "bad").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GUIDANCE_BENCH_DATA", str(tmp_path / "work" / "data"))


@pytest.fixture
def bad(tmp_path):
    def write(name: str, content: bytes):
        path = tmp_path / "bad" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def refused(tmp_path, *arguments) -> str:
    ran = bench(*arguments)
    assert ran.code not in (0, None), ran.out
    lines = ran.err.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert len([line for line in lines if line.startswith("Error: ")]) == 1
    assert len(lines[-1]) < 2000
    assert {path.name for path in tmp_path.iterdir()} <= {"work", "bad"}
    assert not list(tmp_path.rglob(makers.CANARY))
    return lines[-1]


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run of edm on modes1d, without any training."""
    card = tiny_card("edm", name="r")
    folder = tmp_path / "work" / "results" / "default" / "runs" / "r"
    write_card(folder, card)
    save_weights(folder / WEIGHTS, make_method(card, find_dataset("modes1d")).build().state_dict())
    return folder


SAMPLE = ("sample", "-g", "1", "-n", "4", "--out", "x.npz")


def test_undamaged_run_can_be_sampled(run):
    assert bench(*SAMPLE).code == 0


@pytest.mark.parametrize(
    "kind",
    ["safetensors of NaN", "safetensors of 2^60 bytes", "safetensors of a deep header", "empty",
     "torch file with code"],
)  # fmt: skip
def test_weights(tmp_path, run, kind):
    (run / WEIGHTS).write_bytes(corpus.BYTES[kind]())
    refused(tmp_path, *SAMPLE)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("name",), "../../../../../evil"),
        (("name",), "/evil"),
        (("name",), ".."),
        (("shape",), [1 << 40]),
        (("shape",), [-1]),
        (("num_classes",), 10**12),
        (("config", "net", "width"), 10**9),
        (("config", "net", "blocks"), 10**9),
        (("config", "net", "width"), 32_768),
        (("seed",), -1),
    ],
)  # fmt: skip
def test_cards_of_runs(tmp_path, run, path, found):
    card = json.loads((run / "run.json").read_text())
    node = card
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = found
    (run / "run.json").write_text(json.dumps(card))
    refused(tmp_path, *SAMPLE)
    refused(tmp_path, "sweep", "-g", "1", "-n", "4", "--metric", "w1")


@settings(max_examples=max(10, settings().max_examples // 4))
@given(st.data())
def test_cards_of_runs_of_any_values(tmp_path_factory, data):
    card = json.loads(tiny_card("edm", name="r").model_dump_json())
    content = data.draw(broken(card))
    folder = tmp_path_factory.mktemp("card")
    place = folder / "results" / "default" / "runs" / "r"
    place.mkdir(parents=True)
    (place / "run.json").write_bytes(content)
    ran = bench(*SAMPLE, "--results", folder / "results")  # it must fail: there are no weights
    assert ran.code != 0
    assert ran.err.strip().splitlines()[-1].startswith("Error: ")
    assert [path.name for path in folder.iterdir()] == ["results"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "..", "a/b", "C:evil", "a\\b", ".hidden", ""])
def test_names_that_lead_elsewhere(tmp_path, bad, run, name):
    suite = f"experiment = {json.dumps(name)}\n[[study]]\ndataset='modes1d'\nmethods=['edm']\n"
    path = bad("x.toml", suite.encode())
    refused(tmp_path, "train", "--suite", path)
    refused(tmp_path, "sweep", "--suite", path)
    refused(tmp_path, "report", "--suite", path)
    refused(tmp_path, "report", "--experiment", name)
    if name:  # an empty name is replaced by preset, method and seed
        refused(tmp_path, "train", "-m", "edm", "-d", "modes1d", "--name", name)
    tree = write_folder(tmp_path / "bad" / "images", image_tree())
    if name:
        refused(tmp_path, "data", "prepare", tree, "--dataset", name)
        refused(tmp_path, "data", "verify", name)


@pytest.mark.parametrize(
    "kind",
    ["deep TOML", "long TOML number", "many dots", "UTF-16", "TOML infinity", "noise", "PNG",
     "string of 10 MB", "NaN"],
)  # fmt: skip
def test_suites(tmp_path, bad, kind):
    path = bad("x.toml", corpus.BYTES[kind]())
    for command in ("train", "sweep", "report"):
        refused(tmp_path, command, "--suite", path)


@pytest.mark.parametrize(
    "kind", ["empty", "deep lists", "string of 10 MB", "1e999", "long number", "UTF-16", "PNG"]
)
@pytest.mark.parametrize("folder", ["cells", "inversions"])
def test_rows(tmp_path, kind, folder):
    place = tmp_path / "work" / "results" / "default"
    write_row(place / "cells", row("modes1d", "edm", 1.0, value("w1", 1.0)))
    (place / folder / "x").mkdir(parents=True)
    (place / folder / "x" / "x.json").write_bytes(corpus.BYTES[kind]())
    refused(tmp_path, "report")
    assert not (place / "report").exists()


def test_pipe_among_the_rows(tmp_path):
    place = tmp_path / "work" / "results" / "default" / "cells" / "x"
    place.mkdir(parents=True)
    os.mkfifo(place / "x.json")
    refused(tmp_path, "report")


@pytest.mark.parametrize(
    "kind",
    ["zip with ..", "zip with a root", "zip with a drive", "zip with links", "zip of a program",
     "zip of 10^10 pixels", "zip with a deep card", "zip that claims 4 GiB", "bomb of a card",
     "npz with code", "npz of 10^12", "bomb of vectors", "bomb of moments", "noise", "text"],
)  # fmt: skip
def test_samples_and_statistics(tmp_path, bad, kind):
    for suffix in ("zip", "npz"):
        path = bad(f"x.{suffix}", corpus.BYTES[kind]())
        refused(tmp_path, "evaluate", path, "--reference", "digits")
        refused(tmp_path, "evaluate", "digits", "--reference", path)
        refused(tmp_path, "stats", "show", path)


@pytest.mark.parametrize(
    "kind",
    ["pickle with code", "pickle that laughs", "deep pickle", "older torch file with code",
     "torch file with code", "noise"],
)  # fmt: skip
def test_pickles(tmp_path, bad, kind):
    path = bad("x.pkl", corpus.BYTES[kind]())
    refused(tmp_path, "stats", "show", path)
    refused(tmp_path, "import", path, "--as", "edm")
    refused(tmp_path, "data", "prepare", path)


@pytest.mark.parametrize(
    "kind", [kind for kind in corpus.BYTES if kind.startswith(("tar ", "zip "))]
)
def test_data_sources(tmp_path, bad, kind):
    refused(tmp_path, "data", "prepare", bad("x.tar", corpus.BYTES[kind]()), "--dataset", "x")
    data = tmp_path / "work" / "data"
    assert not data.exists() or contents(data) == {}


@pytest.mark.parametrize("kind", ["deep lists", "null", "UTF-16", "string of 10 MB", "long number"])
def test_cards_of_prepared_data(tmp_path, kind):
    folder = tmp_path / "work" / "data" / "x"
    folder.mkdir(parents=True)
    (folder / CARD).write_bytes(corpus.BYTES[kind]())
    for command in (("data", "verify", "x"), ("train", "-m", "edm", "-d", "x"),
                    ("evaluate", "x", "-r", "x")):  # fmt: skip
        refused(tmp_path, *command)


@pytest.mark.parametrize("label", [-1, 3, 1 << 62])
def test_labels_of_prepared_data(tmp_path, bad, label):
    tree = write_folder(tmp_path / "bad" / "images", image_tree())
    assert bench("data", "prepare", tree, "--dataset", "x").code == 0
    folder = tmp_path / "work" / "data" / "x"
    content = bytearray((folder / LABELS).read_bytes())
    content[-8:] = label.to_bytes(8, "little", signed=True)
    (folder / LABELS).write_bytes(content)
    card = json.loads((folder / CARD).read_text())
    from bench.system.files import sha256

    (folder / CARD).write_text(json.dumps(card | {"labels_sha256": sha256(folder / LABELS)}))
    assert "has labels from" in refused(tmp_path, "evaluate", "x", "-r", "x")


@pytest.mark.parametrize("kind", ["npz with code", "bomb of an about", "npz of a huge text", "PNG",
                                  "zip with a password", "PNG of 10^10 pixels"])  # fmt: skip
@pytest.mark.parametrize("suffix", ["npz", "zip", "png"])
def test_output_that_is_there_is_kept(tmp_path, run, bad, kind, suffix):
    path = bad(f"x.{suffix}", corpus.BYTES[kind]())
    before = path.read_bytes()
    refused(tmp_path, "sample", "-g", "1", "-n", "4", "--out", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "kind", ["safetensors of 2^60 bytes", "safetensors of NaN", "empty", "PNG"]
)
def test_other_weights(tmp_path, run, bad, kind):
    path = bad("x.safetensors", corpus.BYTES[kind]())
    refused(tmp_path, *SAMPLE, "--null-checkpoint", path)
    refused(tmp_path, "train", "-m", "igct", "-d", "modes1d", "--init-from", path)
