"""Files that are left out are counted and named by every command."""

import json

import pytest

from metrics import EXTRACTORS
from tests.bench.data.makers import encoded, image_tree, pixels, write_folder, write_zip
from tests.bench.evaluation.helpers import Small
from tests.bench.helpers import bench


def tree() -> dict[str, bytes]:
    return image_tree(12, split=False)


@pytest.fixture
def odd() -> dict[str, bytes]:
    """Three classes, one of which no reader reads, and files beside them."""
    files = {f"eel/{i}.heic" if "eel" in n else n: f for i, (n, f) in enumerate(tree().items())}
    return files | {"preview.png": encoded(pixels(1)[0]), "notes.md": b"x", "cat/a.txt": b"x"}


SAID = (
    "eft out 15 files (12 with .heic, 1 with .png, 1 with .txt, 1 with .md; such as 'preview.png')"
)


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_every_command_counts_and_names_what_it_leaves_out(tmp_path, odd, monkeypatch, write):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "source", odd)
    ran = bench("data", "prepare", source, "-d", "tiny")
    assert ran.code == 0, ran.err
    assert "24 of" not in ran.out
    assert "2 classes" in ran.out
    assert f"L{SAID}" in ran.out
    ran = bench("stats", "make", source, "-x", "small", "-o", "s.npz")
    assert f"l{SAID}" in ran.err
    assert "Moments of 24 samples" in ran.out
    ran = bench("evaluate", source, "-r", source, "-x", "small", "--metric", "fd", "-o", "o.json")
    assert f"l{SAID}" in ran.err
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["rows"][0]["n"] == 24
    assert any(SAID in line for line in report["warnings"])


def test_twenty_jpg_and_twenty_jfif_are_forty(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    files = {f"a/{i:02}.{'jpg' if i % 2 else 'jfif'}": encoded(image, "JPEG")
             for i, image in enumerate(pixels(40))}  # fmt: skip
    source = write_folder(tmp_path / "source", files)
    ran = bench("evaluate", source, "-r", source, "-x", "small", "--metric", "fd",
                "--results", tmp_path)  # fmt: skip
    assert ", 40 (SHA" in ran.out
    assert "left out" not in ran.err


def test_folder_of_other_files_only_is_refused_with_their_number(tmp_path):
    source = write_folder(tmp_path / "source", {f"a/{i}.heic": b"x" for i in range(3)})
    ran = bench("evaluate", source, "-r", source)
    assert ran.code == 1
    assert "It holds 3 files (3 with .heic; such as 'a/0.heic')." in ran.err
