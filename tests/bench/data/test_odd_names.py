"""Names that are no UTF-8, and system folders, in every command that reads images."""

import json
import os

import pytest

from bench.data.find import find_dataset
from bench.system.errors import plain
from metrics import EXTRACTORS
from tests.bench.data.makers import encoded, image_tree, pixels, write_folder, write_tar
from tests.bench.evaluation.helpers import Small
from tests.bench.helpers import bench

ODD = os.fsdecode(b"do\xe9g")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.chdir(tmp_path)


def files() -> dict[str, bytes]:
    return {name.replace("dog", ODD): f for name, f in image_tree(12, split=False).items()}


def test_bytes_that_are_no_utf8_are_written_as_escapes():
    assert plain(ODD) == "do\\xe9g"
    assert plain("caf\u00e9 \u4e2d") == "caf\u00e9 \u4e2d"
    assert plain("a\ud800b") == "a\\x00b"


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_class_names_that_are_no_utf8_are_read_and_stored(tmp_path, kind):
    write = write_folder if kind == "folder" else write_tar
    source = write(tmp_path / f"pets{ODD}", files() | {f"{ODD}.txt": b"x"})
    ran = bench("data", "prepare", source, "-d", "pets")
    assert ran.code == 0, ran.err
    assert "Left out 1 file (1 with .txt; such as 'do\\\\xe9g.txt')." in ran.out
    assert find_dataset("pets").class_names == ("cat", "do\\xe9g", "eel")
    ran = bench("evaluate", source, "-r", "pets:train", "-x", "small", "--metric", "class_fd",
                "--metric", "fd", "-o", "o.json")  # fmt: skip
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "o.json").read_text())
    assert {row["metric"] for row in report["rows"]} == {"fd", "class_fd"}
    assert report["rows"][0]["samples"].endswith("petsdo\\xe9g")
    ran = bench("stats", "make", source, "-x", "small", "-o", "s.npz")
    assert ran.code == 0, ran.err
    assert bench("evaluate", source, "-r", "s.npz", "-x", "small", "--metric", "fd").code == 0


@pytest.mark.parametrize("folder", ["@eaDir", "__pycache__", "cat/@eaDir/000.png"])
def test_system_folders_are_no_classes(tmp_path, folder):
    more = {f"{folder}/thumb.png": encoded(pixels(1, (3, 4, 4))[0])}
    source = write_folder(tmp_path / "source", image_tree(12, split=False) | more)
    ran = bench("data", "prepare", source, "-d", "pets")
    assert "3 classes" in ran.out, ran.err
    ran = bench("evaluate", source, "-r", "pets", "-x", "small", "--metric", "fd")
    assert ", 36 (SHA" in ran.out, ran.err
