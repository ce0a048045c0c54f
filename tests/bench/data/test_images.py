"""Samples to files and back, and files that are refused."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.samples.card import SampleCard, parse_sample_card
from bench.data.samples.read import open_samples, read_samples
from bench.data.samples.write import SampleWriter, check_format, first_missing, guess_format
from bench.system import files
from bench.system.errors import UserError

KINDS = {"png": "folder", "zip": "file.zip", "npz": "file.npz"}


def make_card(n=23, shape=(3, 8, 6), classes=(0, 1, 2), **changes):
    names = ("cat", "big/dog", "..") if max(classes) < 3 else tuple(f"c{k}" for k in range(12))
    fields = {
        "run": "r", "method": "edm", "dataset": "d", "checkpoint": "ab", "guidance": 2.5,
        "steps": 3, "nfe": 5, "seed": 1, "n": n, "shape": shape, "classes": classes,
        "class_names": names, "cell": "k",
    }  # fmt: skip
    return SampleCard(**{**fields, **changes})


def make_samples(card):
    generator = torch.Generator().manual_seed(0)
    if len(card.shape) == 1:
        return torch.randn(card.n, *card.shape, generator=generator)
    return torch.randint(0, 256, (card.n, *card.shape), dtype=torch.uint8, generator=generator)


def write(path, kind, card, batch=7, start=0, stop=None):
    x, y = make_samples(card), torch.tensor(card.labels)
    with SampleWriter(path, kind, card, start) as writer:
        for i in range(start, card.n if stop is None else stop, batch):
            writer.add(x[i : i + batch], y[i : i + batch])
        if stop is not None:
            raise KeyboardInterrupt
    return x, y


def read(path, **options):
    batches = list(read_samples(path, **options))
    labels = [y for _, y in batches]
    assert all(y is None for y in labels) or all(y is not None for y in labels)
    return (
        torch.cat([x for x, _ in batches]),
        None if labels[0] is None else torch.cat(labels),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 5)])
def test_round_trip(tmp_path, kind, shape):
    card = make_card(shape=shape, classes=(2, 0))
    path = tmp_path / "new" / KINDS[kind]
    x, y = write(path, kind, card)
    assert guess_format(path) == kind
    assert y[:3].tolist() == [2, 0, 2]
    for batch in (5, 256):
        back, labels = read(path, batch=batch)
        assert back.dtype == torch.uint8
        assert torch.equal(back, x)
        assert torch.equal(labels, y)
    assert [len(b) for b, _ in read_samples(path, batch=10)] == [10, 10, 3]
    assert first_missing(path, kind, card) == card.n
    colour, _ = read(path, channels=3)
    assert torch.equal(colour, x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_equal_samples_make_equal_files_whatever_the_batch(tmp_path, kind):
    paths = [tmp_path / f"{batch}.{kind}" for batch in (3, 23)]
    for path, batch in zip(paths, (3, 23), strict=True):
        write(path, kind, make_card(), batch)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_npz_has_the_layout_of_the_adm_evaluator(tmp_path):
    card = make_card()
    x, y = write(tmp_path / "a.npz", "npz", card)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["arr_0"].dtype == np.uint8
        assert np.array_equal(arrays["arr_0"], x.permute(0, 2, 3, 1).numpy())
        assert arrays["arr_1"].dtype == np.int64
        assert np.array_equal(arrays["arr_1"], y.numpy())
        assert parse_sample_card(str(arrays["about"])) == card


def test_vectors_go_to_npz_only(tmp_path):
    card = make_card(shape=(2,))
    x, y = write(tmp_path / "a.npz", "npz", card)
    back, labels = read(tmp_path / "a.npz")
    assert back.dtype == torch.float32
    assert torch.equal(back, x)
    assert torch.equal(labels, y)
    for kind in ("png", "zip", "grid"):
        with pytest.raises(UserError, match="vectors, which only npz can hold"):
            check_format(kind, card)


def test_class_folders_sort_like_classes_and_stay_inside(tmp_path):
    card = make_card(24, classes=tuple(range(12)))
    write(tmp_path / "a", "png", card)
    folders = sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_dir())
    assert folders == [f"{k:02d}-c{k}" for k in range(12)]
    names = {p.relative_to(tmp_path).as_posix() for p in write_folder(tmp_path / "b").rglob("*.*")}
    assert "b/1-big_dog/000001.png" in names
    assert "b/2-../000002.png" in names
    about = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert about["labels"] == card.labels == [i % 12 for i in range(24)]
    assert (about["guidance"], about["steps"], about["nfe"], about["seed"]) == (2.5, 3, 5, 1)
    # Without samples.json it is an ordinary folder of classes.
    (tmp_path / "a" / "samples.json").unlink()
    x, y = read(tmp_path / "a")
    expected = torch.tensor(card.labels).sort(stable=True)
    assert torch.equal(y, expected.values)
    assert torch.equal(x, make_samples(card)[expected.indices])


def write_folder(path, card=None):
    write(path, "png", card or make_card())
    return path


def test_grid_shows_one_class_per_column(tmp_path):
    card = make_card(12, shape=(3, 16, 16))
    x, _ = write(tmp_path / "a.png", "grid", card)
    with Image.open(tmp_path / "a.png") as picture:
        assert parse_sample_card(picture.info["about"]) == card
        pixels = np.asarray(picture)
    # 4 rows of 3 tiles, 16 pixels doubled, 2 between and around.
    assert pixels.shape == (4 * 34 + 2, 3 * 34 + 2, 3)
    for i in range(12):
        top, left = i // 3 * 34 + 2, i % 3 * 34 + 2
        tile = pixels[top : top + 32 : 2, left : left + 32 : 2]
        assert np.array_equal(tile, x[i].permute(1, 2, 0).numpy())
    assert (pixels[:2] == 255).all()
    assert first_missing(tmp_path / "a.png", "grid", card) == 12
    with pytest.raises(UserError, match="at most 1,024 samples, got 2,000"):
        check_format("grid", make_card(2000))


@pytest.mark.parametrize("kind", [*KINDS, "grid"])
def test_interrupted_write_leaves_a_resumable_folder_or_nothing(tmp_path, kind):
    card, path = make_card(), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write(path, kind, card, stop=14)
    have = first_missing(path, kind, card)
    if kind != "png":
        assert have == 0
        assert list(tmp_path.iterdir()) == []
        return
    assert have == 14
    with pytest.raises(UserError, match="unfinished: 9 of 23 samples are missing"):
        read(path)
    x, _ = write(path, kind, card, start=14)
    assert torch.equal(read(path)[0], x)


@pytest.mark.parametrize("kind", ["zip", "npz", "grid"])
def test_full_disk_at_the_end_leaves_nothing(tmp_path, kind, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "out", kind, make_card())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [*KINDS, "grid"])
def test_incomplete_samples_leave_nothing(tmp_path, kind):
    card, path = make_card(), tmp_path / "out"
    with SampleWriter(path, kind, card) as writer:
        writer.add(make_samples(card)[:5], torch.tensor(card.labels[:5]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [*KINDS, "grid"])
def test_existing_samples_of_other_settings_are_refused(tmp_path, kind):
    path = tmp_path / "out"
    write(path, kind, make_card())
    with pytest.raises(UserError, match=r"other settings \(guidance is 2.5 there, 3.0 here\)"):
        first_missing(path, kind, make_card(guidance=3.0, cell="l"))
    with pytest.raises(UserError, match="the code, settings or training data"):
        first_missing(path, kind, make_card(cell="l"))
    other = tmp_path / "foreign"
    if kind == "png":
        other.mkdir()
        assert first_missing(other, kind, make_card()) == 0
        (other / "note.txt").write_text("mine")
    else:
        other.write_text("mine")
    with pytest.raises(UserError, match="does not say which samples it holds"):
        first_missing(other, kind, make_card())
    wrong = tmp_path / "wrong"
    wrong.write_text("") if kind == "png" else wrong.mkdir()
    with pytest.raises(UserError, match=r"it is a (file|folder), not"):
        first_missing(wrong, kind, make_card())


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path)
    return path


GREY = np.arange(30, dtype=np.uint8).reshape(5, 6)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], 2)


def test_folders_from_elsewhere_are_read(tmp_path):
    save(tmp_path / "b" / "1.png", COLOUR)
    save(tmp_path / "a" / "2.bmp", COLOUR)
    save(tmp_path / "a" / "1.png", GREY)
    (tmp_path / "a" / ".1.png").write_text("of the system")
    (tmp_path / "a" / "Thumbs.db").write_text("of the system")
    save(tmp_path / "a" / ".thumbnails" / "1.png", COLOUR)
    with pytest.raises(UserError, match=r"2\.bmp is in colour; grey images are needed"):
        read(tmp_path, channels=1)
    x, y = read(tmp_path)
    assert y.tolist() == [0, 0, 1]
    assert torch.equal(x[1], torch.from_numpy(COLOUR).permute(2, 0, 1))
    assert torch.equal(x[0, 2], torch.from_numpy(GREY))
    # One odd file costs no labels; among more images outside of folders there are no classes.
    save(tmp_path / "flat.png", COLOUR)
    assert read(tmp_path, channels=3)[1].tolist() == [0, 0, 1]
    assert open_samples(tmp_path).left_out == ("flat.png",)
    for name in "xyz":
        save(tmp_path / f"{name}.png", COLOUR)
    x, y = read(tmp_path, channels=3)
    assert (len(x), y) == (7, None)


def zipped(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def test_archives_from_elsewhere_are_read(tmp_path):
    path = zipped(
        tmp_path / "a.zip",
        [("x/", ""), ("x/2.png", png(COLOUR)), ("w/1.png", png(COLOUR)), ("readme.txt", "hello")],
        compression=zipfile.ZIP_DEFLATED,
    )
    x, y = read(path)
    assert y.tolist() == [0, 1]
    assert torch.equal(x[0], torch.from_numpy(COLOUR).permute(2, 0, 1))
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "b.npz", images)
    x, y = read(tmp_path / "b.npz", batch=4)
    assert y is None
    assert np.array_equal(x.permute(0, 2, 3, 1).numpy(), images)
    np.savez_compressed(tmp_path / "c.npz", images, np.arange(9, dtype=np.int32))
    assert read(tmp_path / "c.npz", batch=4)[1].tolist() == list(range(9))


def huge_card(n=10**15, classes=(0,)):
    about = make_card().model_dump(mode="json")
    return json.dumps({**about, "n": n, "classes": classes})


def link_entry():
    entry = zipfile.ZipInfo("a/1.png")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("/etc/1.png", b"")], "has a member '/etc/1.png' that would leave its folder"),
        ([("a/../../1.png", b"")], "that would leave its folder"),
        ([("a\\..\\1.png", b"")], "that would leave its folder"),
        ([("C:/1.png", b"")], "that would leave its folder"),
        ([(link_entry(), b"/etc/passwd")], "has a link as its member 'a/1.png'"),
        ([("a.txt", b""), ("__MACOSX/a.png", png(GREY))], "There are no images in"),
        ([("a.png", png(GREY)), ("a.png", png(COLOUR))], "has two members named 'a.png'"),
        ([("a.png", b"no image")], "a.png is not an image that can be read"),
        ([("a.png", png(COLOUR)[:48])], "a.png is damaged or cut off"),
        ([("a.png", png(COLOUR)), ("b.png", png(COLOUR[1:]))],
         "b.png has 6 x 4 pixels, the images before it 6 x 5; all must have one size"),
        ([("a.png", png(GREY.astype(np.uint16)))], "mode 'I;16', which 8 bits a channel"),
        ([("samples.json", b"{}"), ("a.png", png(GREY))], "does not describe samples"),
        ([("samples.json", huge_card()), ("a.png", png(GREY))],
         "unfinished: 999,999,999,999,999 of"),
        ([("samples.json", huge_card(n=1, classes=(5,))), ("a.png", png(GREY))],
         "classes outside the 3 that have names"),
        ([("samples.json", huge_card(n=1)), ("a.png", png(GREY))],
         "lacks 1 of its 1 samples, such as 0-cat/000000.png"),
        ([("samples.json", b"[" * 5000), ("a.png", png(GREY))], "does not describe samples"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unusable_zips_are_refused(tmp_path, entries, said):
    path = zipped(tmp_path / "a.zip", entries)
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def npz(path, array=None, header=None, data=b"", name="arr_0.npy"):
    buffer = io.BytesIO()
    if header is None:
        np.lib.format.write_array(buffer, array)
    else:
        text = header.encode()
        buffer.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
    return zipped(path, [(name, buffer.getvalue())])


def header_of(shape, descr="'|u1'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ({"array": np.array([{}], object)}, "pickled objects, which could run code"),
        ({"array": np.zeros((2, 4, 4, 3))}, r"arr_0 is float64 \(2, 4, 4, 3\), not uint8"),
        ({"array": np.zeros((2, 3, 4, 4), np.uint8)}, "not uint8"),
        ({"array": np.zeros((0, 4, 4, 3), np.uint8)}, "is empty"),
        ({"array": np.zeros((2, 4, 4, 3), np.uint8, "F")}, "Fortran order"),
        ({"array": np.zeros(3, np.uint8), "name": "images.npy"}, "it has no arr_0"),
        ({"header": header_of("(1000000000, 512, 512, 3)"), "data": b"12"}, "not the size of its"),
        ({"header": header_of("(-1, 4, 4, 3)"), "data": b""}, "is empty"),
        (
            {"header": header_of("(1,)") + " " * 20_000},
            "header of arr_0.npy is damaged or too long",
        ),
        ({"header": "__import__('os').getcwd()"}, "header of arr_0.npy is damaged or too long"),
    ],
)
def test_unusable_npz_files_are_refused(tmp_path, make, said):
    with pytest.raises(UserError, match=said) as caught:
        read(npz(tmp_path / "a.npz", **make))
    assert "\n" not in str(caught.value)


def test_npz_with_unsuitable_labels_is_refused(tmp_path):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    for labels in (np.zeros(4, np.int64), np.zeros(3), np.zeros((3, 1), np.int64)):
        np.savez(tmp_path / "a.npz", images, labels)
        with pytest.raises(UserError, match="not one whole number for each of 3"):
            read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images, np.array([None] * 3))
    with pytest.raises(UserError, match="pickled objects"):
        read(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_damaged_files_are_refused(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write(path, kind, make_card())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged or cut off in its table of contents"):
        read(path)
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"(Cannot read|is damaged or cut off)"):
        read(path)


def test_folder_follows_links_and_refuses_dangling_ones_and_foreign_images(tmp_path):
    outside = save(tmp_path / "outside.png", COLOUR)
    folder = tmp_path / "in"
    save(folder / "1.png", COLOUR)
    (folder / "2.png").symlink_to(folder / "1.png")
    assert len(read(folder)[0]) == 2
    (folder / "3.png").symlink_to(outside)
    assert len(read(folder)[0]) == 3
    (folder / "4.png").symlink_to("nothing")
    with pytest.raises(UserError, match=r"4.png is a link to nothing"):
        read(folder)
    samples = write_folder(tmp_path / "samples")
    save(samples / "extra.png", COLOUR)
    with pytest.raises(UserError, match=r"1 other images besides its samples, such as extra\.png"):
        read(samples)


def test_missing_files_and_images_are_reported(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        read_samples(tmp_path / "absent")
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="is neither a folder nor a readable tar"):
        read_samples(tmp_path / "text")
    with pytest.raises(UserError, match="There are no images in"):
        read_samples(tmp_path)
