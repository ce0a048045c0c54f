"""Images are turned as their EXIF orientation says; that, frames and enlargement are reported."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench.data.decode import Geometry, decode, read_head
from bench.data.find import find_dataset
from bench.inversion.find import read_images
from methods.spec import DataSpec
from metrics import EXTRACTORS
from tests.bench.data.makers import encoded, image_tree, pixels, write_folder
from tests.bench.evaluation.helpers import Small
from tests.bench.helpers import bench

UPRIGHT = pixels(1, (3, 4, 6))[0]
# The first row and column of the stored image are these sides of the upright one (EXIF 2.3).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, :, ::-1],
    3: lambda a: a[:, ::-1, ::-1],
    4: lambda a: a[:, ::-1],
    5: lambda a: a.transpose(0, 2, 1),
    6: lambda a: a.transpose(0, 2, 1)[:, ::-1],
    7: lambda a: a.transpose(0, 2, 1)[:, ::-1, ::-1],
    8: lambda a: a.transpose(0, 2, 1)[:, :, ::-1],
}


def turned(upright: np.ndarray, orientation: int, kind: str = "PNG", **more) -> bytes:
    """A file that shows `upright` once its orientation is applied."""
    stored = np.ascontiguousarray(STORED[orientation](upright).transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, format=kind, exif=exif, **more)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_each_orientation_is_applied_or_kept(kind, orientation):
    content = turned(UPRIGHT, orientation, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = decode(content, "x")
    assert np.array_equal(found.pixels, UPRIGHT)
    assert found.oddities == (() if orientation == 1 else ("turned",))
    assert read_head(content, "x") == (False, (6, 4))
    kept = decode(content, "x", Geometry(orient=False))
    assert np.array_equal(kept.pixels, STORED[orientation](UPRIGHT))
    assert kept.oddities == (() if orientation == 1 else ("stored",))


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRACTORS, "small", Small)
    monkeypatch.chdir(tmp_path)
    files = image_tree(12, split=False)
    for i, name in enumerate(("cat/000.png", "dog/000.png", "eel/000.png")):
        files[name] = turned(pixels(1, seed=90 + i)[0], (3, 6, 8)[i])
    frames = [Image.fromarray(f.transpose(1, 2, 0)) for f in pixels(2, seed=7)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    files["cat/moving.gif"] = buffer.getvalue()
    return write_folder(tmp_path / "pets", files)


def images_of(data) -> set[bytes]:
    return {x.tobytes() for s in (data.train, data.reference) for x in s.samples[:].numpy()}


TURNED = "3 turned as their EXIF orientation says (--no-orient keeps them as stored)."
FRAMES = "1 with several frames, of which the first is used."


def test_every_command_turns_counts_and_reports(source, tmp_path):
    upright = {pixels(1, seed=90 + i)[0].tobytes() for i in range(3)}
    ran = bench("data", "prepare", source, "-d", "pets-upright")
    assert f"Images: {TURNED}" in ran.out
    assert f"Images: {FRAMES}" in ran.out
    data = find_dataset("pets-upright")
    assert upright <= images_of(data)
    ran = bench("data", "prepare", source, "-d", "pets-upright", "--no-orient")
    assert "prepared with images turned as their EXIF orientation says, and this" in ran.err
    assert "asks for --no-orient" in ran.err
    ran = bench("data", "prepare", source, "-d", "stored", "--no-orient")
    assert "Images: 3 not turned as their EXIF orientation says." in ran.out
    assert not upright & images_of(find_dataset("stored"))
    ran = bench("stats", "make", source, "-x", "small", "-o", "s.npz")
    assert TURNED in ran.err
    assert FRAMES in ran.err
    usual = ("-x", "small", "--metric", "fd", "-o", "o.json")
    ran = bench("evaluate", source, "-r", "pets-upright:train", *usual)
    assert TURNED in ran.err
    hashes = [json.loads((tmp_path / "o.json").read_text())["rows"][0]["samples_hash"]]
    bench("evaluate", source, "-r", "pets-upright:train", *usual, "--no-orient")
    hashes.append(json.loads((tmp_path / "o.json").read_text())["rows"][0]["samples_hash"])
    assert hashes[0] != hashes[1]
    data = SimpleNamespace(name="d", spec=DataSpec("d", (3, 8, 8), 2))
    assert read_images([source / "dog" / "000.png"], data)[0].numpy().tobytes() in upright


def test_enlargement_is_counted(source):
    ran = bench("data", "prepare", source, "-d", "pets-large", "--size", "16")
    assert "Images: 37 enlarged to the size." in ran.out, ran.err


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    content = encoded(UPRIGHT, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(content, "x").pixels.shape == (3, 4, 6)
