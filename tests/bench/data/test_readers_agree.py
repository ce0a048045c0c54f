"""`bench data prepare`, `bench evaluate` and `bench edit` read the same files in the same way."""

import json
import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from bench.data.decode import FORMATS, SUFFIXES
from bench.data.labels import CLASSES_MOST
from bench.evaluation.sides import file_source
from bench.inversion.find import read_images
from bench.system.errors import UserError
from methods.spec import DataSpec
from tests.bench.data.makers import (
    edm_files,
    encoded,
    image_tree,
    imagenet_files,
    pixels,
    write_folder,
    write_tar,
    write_zip,
)
from tests.hostile import makers

PACKED = {"folder": write_folder, "zip": write_zip, "tar": write_tar}


def classes(per_class: int = 12, **options) -> dict[str, bytes]:
    return image_tree(per_class, split=False, **options)


@pytest.fixture
def by_prepare(prepared):
    """Every image with its class, sorted."""

    def read(path):
        data = prepared(path, path.name.replace(".", "-"))
        splits = (data.train, data.reference)
        return sorted(
            (image.tobytes(), label)
            for split in splits
            for image, label in zip(split.samples[:].numpy(), split.labels.tolist(), strict=True)
        )

    return read


def by_evaluate(path):
    return sorted(
        (image.tobytes(), label)
        for x, y in file_source(path).batches()
        for image, label in zip(x.numpy(), y.tolist(), strict=True)
    )


def by_edit(path, channels=3, size=8):
    data = SimpleNamespace(name="d", spec=DataSpec("d", (channels, size, size), 2))
    return read_images([path], data)[0].numpy()


def refusals(path, by_prepare) -> set[str]:
    """What is said, once in all if the readers agree."""
    found = set()
    for read in (by_prepare, by_evaluate):
        with pytest.raises(UserError) as caught:
            read(path)
        found.add(str(caught.value))
    return found


@pytest.mark.parametrize("kind", PACKED)
def test_folder_zip_and_tar_give_the_same_images(tmp_path, by_prepare, kind):
    path = PACKED[kind](tmp_path / "source", classes())
    found = by_prepare(path)
    assert len(found) == 36
    assert {label for _, label in found} == {0, 1, 2}
    assert by_evaluate(path) == found


def test_tar_keeps_its_order_in_names_and_batches(tmp_path):
    files = classes()
    side = file_source(write_tar(tmp_path / "t.tar", files))
    assert list(side.files) == list(reversed(files))
    labels = [label for _, y in side.batches() for label in y.tolist()]
    assert labels == [2] * 12 + [1] * 12 + [0] * 12
    assert side.n == 36


def test_linked_class_folders_are_read(tmp_path, by_prepare):
    source = write_folder(tmp_path / "source", classes())
    (source / "fox").symlink_to("cat", target_is_directory=True)
    (source / "cat" / "linked.png").symlink_to("000.png")
    found = by_prepare(source)
    # 12 each, the linked image in the cat's folder, and all of these again as foxes.
    assert [sum(label == k for _, label in found) for k in range(4)] == [13, 12, 12, 13]
    assert by_evaluate(source) == found


def test_links_to_files_and_folders_elsewhere_are_read(tmp_path, by_prepare):
    source = write_folder(tmp_path / "source", classes())
    outside = write_folder(
        tmp_path / "disk" / "outside", {f"{k}.png": encoded(pixels(1)[0]) for k in range(5)}
    )
    (source / "fox").symlink_to(outside, target_is_directory=True)
    (source / "cat" / "x.png").symlink_to("../../disk/outside/0.png")
    found = by_prepare(source)
    assert [sum(label == k for _, label in found) for k in range(4)] == [13, 12, 12, 5]
    assert by_evaluate(source) == found


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("cat/loop", "..", "cat/loop is a link to a folder that contains it; remove the link."),
        ("cat/loop", "../..", "cat/loop is a link to a folder that contains it; remove the link."),
        ("cat/there", "../../outside", "there/back is a link to a folder that contains it"),
        ("cat/self", "self", "self is a link to nothing; remove it."),
        ("cat/gone.png", "nothing.png", "gone.png is a link to nothing; remove it."),
    ],
)
def test_loops_and_dangling_links_are_refused(tmp_path, by_prepare, link, target, said):
    source = write_folder(tmp_path / "source", classes())
    outside = write_folder(tmp_path / "outside", {"x.png": encoded(pixels(1)[0])})
    (outside / "back").symlink_to("../source/cat", target_is_directory=True)
    (source / link).symlink_to(target)
    (sentence,) = refusals(source, by_prepare)
    assert said in sentence


def test_source_that_is_a_link_is_read(tmp_path, by_prepare):
    write_folder(tmp_path / "real", classes())
    (tmp_path / "source").symlink_to("real")
    assert by_evaluate(tmp_path / "source") == by_prepare(tmp_path / "source")


@pytest.mark.parametrize("place", ["cat/000.png", "dog/005.png", "eel/011.png"])
def test_grey_image_among_coloured_ones_becomes_colour(tmp_path, by_prepare, place):
    grey = pixels(1, (1, 8, 8))[0]
    source = write_folder(tmp_path / "source", classes() | {place: encoded(grey)})
    found = by_prepare(source)
    wanted = grey.repeat(3, axis=0)
    assert wanted.tobytes() in {image for image, _ in found}
    assert by_evaluate(source) == found
    assert np.array_equal(by_edit(source / place), wanted)


def test_grey_set_is_grey_for_all_readers(tmp_path, by_prepare):
    source = write_folder(tmp_path / "source", classes(shape=(1, 8, 8)))
    found = by_prepare(source)
    assert {len(image) for image, _ in found} == {64}
    assert by_evaluate(source) == found
    assert by_edit(source / "cat" / "000.png", channels=1).shape == (1, 8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "palette"])
def test_all_readers_give_the_same_pixels_for_every_mode(tmp_path, by_prepare, mode):
    files = classes()
    kind = {"CMYK": "TIFF"}.get(mode, "PNG")
    options = {"transparency": bytes(range(0, 256, 2))} if mode == "palette" else {}
    content = encoded(pixels(1)[0], kind, "P" if mode == "palette" else mode, **options)
    name = f"cat/000.{kind.lower()}"
    source = write_folder(tmp_path / "source", files | {name: content})
    found = by_prepare(source)
    assert by_evaluate(source) == found
    assert by_edit(source / name).tobytes() in {image for image, _ in found}


def test_all_readers_refuse_16_bits(tmp_path, by_prepare):
    deep = encoded(pixels(1, (1, 8, 8))[0], mode="I;16")
    source = write_folder(tmp_path / "source", classes() | {"cat/000.png": deep})
    found = refusals(source, by_prepare)
    with pytest.raises(UserError) as caught:
        by_edit(source / "cat" / "000.png")
    for sentence in (*found, str(caught.value)):
        assert "has pixels of mode 'I;16', which 8 bits a channel cannot hold" in sentence


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_all_readers_read_the_same_suffixes(tmp_path, by_prepare, suffix):
    kind = next(name for name, known in FORMATS.items() if suffix.lower() in known)
    content = encoded(pixels(1, (3, 8, 8), seed=99)[0], kind)
    source = write_folder(tmp_path / "source", classes() | {f"eel/own{suffix}": content})
    found = by_prepare(source)
    assert len(found) == 37
    assert by_evaluate(source) == found
    assert by_edit(source / f"eel/own{suffix}").shape == (3, 8, 8)


def test_other_suffixes_and_hidden_files_are_skipped(tmp_path, by_prepare):
    more = {"cat/a.txt": b"a", "cat/.b.png": b"b", "__MACOSX/cat/c.png": b"c", ".d/e.png": b"e"}
    for kind, write in PACKED.items():
        source = write(tmp_path / kind, classes() | more)
        found = by_prepare(source)
        assert len(found) == 36
        assert by_evaluate(source) == found


def bad_zip(path, name, content=b"x", attributes=0o644 << 16):
    write_zip(path, classes())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = attributes
        archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: bad_zip(p, "../evil.png"), "would leave its folder"),
        (lambda p: bad_zip(p, "/evil.png"), "would leave its folder"),
        (lambda p: bad_zip(p, "C:\\evil.png"), "would leave its folder"),
        (lambda p: bad_zip(p, "cat//./000.png"), "has two members named 'cat/000.png'"),
        (lambda p: bad_zip(p, "cat/link.png", b"/etc/passwd", 0o120777 << 16), "has a link as its"),
        (lambda p: bad_zip(p, ".hidden", b"/etc/passwd", 0o120777 << 16), "has a link as its"),
        (lambda p: p.write_bytes(makers.encrypted_zip()), "is encrypted ('a/1.png')"),
        (lambda p: p.write_bytes(makers.zip_bomb("a/1.png", makers.png())), "unfolds from"),
        (lambda p: p.write_bytes(makers.lying_zip()), "unfolds from"),
        (lambda p: p.write_bytes(b"PK\x03\x04"), "is damaged or cut off in its table of contents"),
        (lambda p: p.write_bytes(b"x" * 999), "is neither a folder nor a readable tar"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_all_readers_refuse_bad_archives(tmp_path, by_prepare, make, said):
    make(tmp_path / "a.zip")
    (sentence,) = refusals(tmp_path / "a.zip", by_prepare)
    assert said in sentence


def test_self_extracting_zip_is_read(tmp_path, by_prepare):
    path = write_zip(tmp_path / "a.exe", classes())
    path.write_bytes(b"MZ" + bytes(700) + path.read_bytes())
    assert by_evaluate(path) == by_prepare(path)


def test_all_readers_refuse_an_image_of_too_many_pixels(tmp_path, by_prepare):
    huge = makers.png_of(9000, 9000)
    source = write_folder(tmp_path / "source", classes() | {"cat/000.png": huge})
    for sentence in refusals(source, by_prepare):
        assert "000.png" in sentence
        assert "declares more pixels than the limit of 67,108,864; it is not read." in sentence
    with pytest.raises(UserError, match="declares more pixels than the limit of 67,108,864"):
        by_edit(source / "cat" / "000.png")


def test_dataset_json_gives_the_classes(tmp_path, by_prepare):
    files, images, labels = edm_files()
    source = write_zip(tmp_path / "e.zip", files)
    assert by_evaluate(source) == by_prepare(source)
    expected = sorted((i.tobytes(), int(k)) for i, k in zip(images, labels, strict=True))
    assert by_evaluate(source) == expected
    pairs = json.loads(files["dataset.json"])["labels"]
    files["dataset.json"] = json.dumps({"labels": pairs[1:]}).encode()
    (sentence,) = refusals(write_zip(tmp_path / "f.zip", files), by_prepare)
    assert "dataset.json has no label for" in sentence


def test_split_folders_are_not_classes(tmp_path, by_prepare):
    source = write_folder(tmp_path / "source", image_tree())
    assert by_evaluate(source) == by_prepare(source)
    assert {label for _, label in by_evaluate(source)} == {0, 1, 2}


def test_folder_called_train_among_classes_is_a_class(tmp_path):
    files = {f"{name}/0.png": encoded(pixels(1)[0]) for name in ("bus", "car", "train")}
    assert [k for _, k in by_evaluate(write_folder(tmp_path / "s", files))] == [0, 1, 2]


def test_all_readers_have_the_same_limit_of_class_numbers(tmp_path, prepared):
    images = pixels(2).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.array([0, CLASSES_MOST]))
    with pytest.raises(UserError, match="from 0 to 100000, not from 0 to 99,999"):
        file_source(tmp_path / "a.npz")
    (tmp_path / "l.txt").write_text(f"0 {CLASSES_MOST}")
    np.savez(tmp_path / "b.npz", arr_0=images)
    with pytest.raises(UserError, match="from 0 to 100000, not from 0 to 99,999"):
        file_source(tmp_path / "b.npz", labels=tmp_path / "l.txt")
    files = imagenet_files(npz=False)[0]
    batch = {"data": np.zeros((1, 192), np.uint8), "labels": [1 << 30]}
    files["train_data_batch_2"] = pickle.dumps(batch)
    with pytest.raises(UserError, match="from 1073741824 to 1073741824, not from"):
        prepared(write_folder(tmp_path / "i", files), "i")
