"""Every reader on every bad file: one sentence, little memory, no code is run."""

import json
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from bench.data.samples.read import BATCH_MOST, read_samples
from tests.hostile import child, corpus, makers
from tests.hostile.good import GOOD
from tests.hostile.readers import READERS, outcome
from tests.processes import Forked


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with every bad file, and with things that are not files."""
    folder = tmp_path_factory.mktemp("bad")
    for name, make in corpus.BYTES.items():
        (folder / name).write_bytes(make())
    for name, path in corpus.no_files(tmp_path_factory.mktemp("odd") / "odd").items():
        if name != "absent":
            path.rename(folder / name)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_every_reader_refuses_every_bad_file(files, tmp_path):
    place = tmp_path / "work"
    place.mkdir()
    process = Forked(child.main, files, tmp_path / "result", list(READERS), cwd=place)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    result = json.loads((tmp_path / "result").read_text())
    assert result["found"] == []
    assert result["tried"] == len(READERS) * len(list(files.iterdir()))
    # No code ran, and nothing was written next to the given files.
    assert [path.name for path in place.iterdir()] == ["place"]
    assert not [path for path in tmp_path.rglob("*") if path.name in (makers.CANARY, "evil")]


@cache
def good(name: str) -> bytes:
    return GOOD[name]()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_read_or_refused_for_what_they_are(scratch, name):
    assert outcome(READERS[name], put(scratch, name, good(name))) == ""


@pytest.mark.parametrize("name", GOOD)
def test_files_that_lost_their_first_bytes_are_read_or_refused(scratch, name):
    for lost in (1, 2, 40):
        assert outcome(READERS[name], put(scratch, name, good(name)[lost:])) == ""


def put(scratch: Path, name: str, content: bytes) -> Path:
    reader = READERS[name]
    folder = scratch / name.replace(" ", "-")
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    reader.prepare(folder)
    path.write_bytes(content)
    return path


# Decoders may warn before they refuse a file.
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data())
@pytest.mark.parametrize("name", GOOD)
def test_cut_and_changed_files_are_read_or_refused(scratch, name, data):
    whole = good(name)
    kind = data.draw(st.sampled_from(["cut", "beheaded", "changed", "mixed", "doubled"]))
    content = bytearray(whole)
    if kind == "cut":
        del content[data.draw(st.integers(0, len(whole) - 1)) :]
    elif kind == "beheaded":
        del content[: data.draw(st.integers(1, len(whole)))]
    elif kind == "changed":
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    elif kind == "mixed":
        other = good(data.draw(st.sampled_from(sorted(GOOD))))
        at = data.draw(st.integers(0, len(whole)))
        content[at:] = other[data.draw(st.integers(0, len(other))) :]
    else:
        at = data.draw(st.integers(0, len(whole)))
        content[at:at] = whole[: data.draw(st.integers(1, len(whole)))]
    assert outcome(READERS[name], put(scratch, name, bytes(content))) == ""


@pytest.mark.parametrize(
    "name", ["sample image", "source image", "picture in a row", "image to edit", "output grid"]
)
def test_no_image_is_handed_to_an_interpreter(scratch, name, monkeypatch):
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: called.append(a))
    path = put(scratch, name, makers.postscript())
    with Image.open(path) as picture, suppress(Exception):  # Pillow itself would run it
        picture.load()
    assert len(called) == 1
    assert outcome(READERS[name], path) == ""
    assert len(called) == 1


def test_batches_of_large_images_are_small(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(makers.archive({f"a/{i}.png": makers.png(6500, 6500) for i in range(3)}))
    sizes = [(len(x), x.nbytes) for x, _ in read_samples(path, batch=256)]
    assert sum(n for n, _ in sizes) == 3
    assert all(n < 3 and size <= BATCH_MOST for n, size in sizes)
