"""Damaged and hostile sources: one sentence that names the member, and nothing left behind."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from bench.data import prepare as module
from bench.data.decode import Geometry
from bench.data.prepare import prepare
from bench.system.errors import UserError
from tests.bench.data.makers import (
    cifar_files,
    edm_files,
    encoded,
    idx,
    idx_files,
    image_tree,
    imagenet_files,
    old_pickle,
    pixels,
    write_folder,
    write_tar,
    write_zip,
)


@pytest.fixture
def refused(root):
    """The sentence by which a source is refused, after which the data root is as it was."""

    def ask(source, name="tiny", **geometry) -> str:
        with pytest.raises(UserError) as found:
            prepare(source, name, Geometry(**geometry), root)
        assert not root.exists() or list(root.iterdir()) == []
        sentence = str(found.value)
        assert "\n" not in sentence
        return sentence

    return ask


def tar_with(path, name, *, kind=tarfile.REGTYPE, link=""):
    """A tar of good images and one member of this name and kind."""
    write_tar(path, image_tree(), "w:")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return path


@pytest.mark.parametrize("name", ["/etc/evil.png", "../evil.png", "train/../../evil.png",
                                  "train\\..\\..\\evil.png", "C:/evil.png"])  # fmt: skip
def test_archive_members_that_lead_outside_are_refused(tmp_path, refused, name):
    text = refused(tar_with(tmp_path / "t.tar", name))
    assert repr(name) in text
    assert "would leave its folder" in text
    zipped = write_zip(tmp_path / "z.zip", {**image_tree(), name: b"x"})
    assert "would leave its folder" in refused(zipped)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "has a link as its member 'train/cat/x.png', to '/etc/passwd'"),
        (tarfile.LNKTYPE, "has a link as its member 'train/cat/x.png', to '/etc/passwd'"),
        (tarfile.FIFOTYPE, "member 'train/cat/x.png' that is not a plain file"),
        (tarfile.CHRTYPE, "member 'train/cat/x.png' that is not a plain file"),
    ],
)
def test_tar_links_and_devices_are_refused(tmp_path, refused, kind, said):
    archive = tar_with(tmp_path / "t.tar", "train/cat/x.png", kind=kind, link="/etc/passwd")
    assert said in refused(archive)


def test_zip_links_are_refused(tmp_path, refused):
    path = write_zip(tmp_path / "z.zip", image_tree())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/cat/x.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "has a link as its member 'train/cat/x.png'" in refused(path)


def test_duplicate_archive_members_are_refused(tmp_path, refused):
    archive = tar_with(tmp_path / "t.tar", "train/cat/000.png")
    assert "two members named 'train/cat/000.png'" in refused(archive)


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_tar_is_reported(tmp_path, refused, mode, share):
    path = write_tar(tmp_path / "t.tar", image_tree(), mode)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    text = refused(path)
    assert "damaged or cut off" in text or "neither a folder nor a readable tar" in text


def test_plain_tar_truncated_between_two_members_is_reported(tmp_path, refused):
    path = write_tar(tmp_path / "t.tar", image_tree(), "w:")
    with tarfile.open(path) as archive:
        cut = archive.getmembers()[20].offset
    path.write_bytes(path.read_bytes()[:cut])
    assert "damaged or cut off" in refused(path)


def test_changed_byte_in_a_zip_is_reported(tmp_path, refused):
    path = write_zip(tmp_path / "z.zip", image_tree())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("train/dog/002.png")
    content[info.header_offset + 30 + len(info.filename) + info.file_size - 1] ^= 1
    path.write_bytes(content)
    text = refused(path)
    assert "damaged or cut off" in text
    assert "'train/dog/002.png'" in text


def test_truncated_zip_and_random_bytes_are_refused(tmp_path, refused):
    path = write_zip(tmp_path / "z.zip", image_tree())
    path.write_bytes(path.read_bytes()[:-200])
    assert "damaged or cut off in its table of contents" in refused(path)
    noise = tmp_path / "noise.tar.xz"
    noise.write_bytes(pixels(1).tobytes())
    assert "neither a folder nor a readable tar" in refused(noise)


def bomb_png(width: int, height: int) -> bytes:
    """A PNG whose header declares these dimensions, with next to no data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_image_that_declares_too_many_pixels_is_refused(tmp_path, refused, side):
    files = image_tree() | {"train/cat/000.png": bomb_png(side, side)}
    text = refused(write_folder(tmp_path / "s", files), size=8)
    assert "'train/cat/000.png' declares more pixels than the limit of 67,108,864" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not an image", "'train/dog/001.png' is not an image that can be read (PNG, JPEG,"),
        (b"", "'train/dog/001.png' is not an image that can be read (PNG, JPEG,"),
        (encoded(pixels(1)[0])[:120], "'train/dog/001.png' is damaged or cut off"),
        (encoded(pixels(1)[0], "JPEG")[:-60], "'train/dog/001.png' is damaged or cut off"),
        (
            encoded(pixels(1, (3, 9, 8))[0]),
            "'train/dog/001.png' is 8x9 RGB where others are 8x8 RGB: bring all to one size with "
            "bench data prepare, such as --size 8 --crop center.",
        ),
        (encoded(pixels(1, (1, 8, 8))[0], mode="I;16"), "pixels of mode 'I;16'"),
    ],
)
def test_unusable_image_is_named_in_the_message(tmp_path, refused, content, said):
    files = image_tree() | {"train/dog/001.png": content}
    assert said in refused(write_tar(tmp_path / "t.tar.xz", files))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.png": b""}, "has the image 'a.png', which is not in a folder of its class"),
        ({"train/a.png": b""}, "has the image 'train/a.png', which is not in a folder of its"),
        ({"train/c/a.png": b"", "d/e.png": b""}, "mixes split/class/file with class/file"),
        ({"test/c/a.png": b"", "val/c/a.png": b""}, "no training images"),
        ({"train/c/a.png": b"", "test/d/a.png": b""}, "has the class 'd' in its reference"),
        ({"c/a.png": b"", "c/b.png": b""}, "too few to hold a reference out"),
        ({"a.txt": b""}, "no data set that is recognised (its first file is 'a.txt'). Known are"),
        ({}, "holds no files"),
    ],
)
def test_unknown_layout_is_refused(tmp_path, refused, files, said):
    (tmp_path / "source").mkdir()
    assert said in refused(write_folder(tmp_path / "source", files))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (b'{"labels": null}', "dataset.json has no labels, which class-conditional methods need"),
        (b"{}", "dataset.json has no labels, which class-conditional methods need"),
        (b"{", "dataset.json is not JSON"),
        (b"[" * 100_000, "dataset.json is not JSON"),
        (b'{"labels": [["00000/img00000000.png", [0, 1]]]}', "has the entry ['00000/img00000000"),
        (b'{"labels": [["00000/img00000000.png", -1]]}', "has the entry ['00000/img00000000.png"),
        (b'{"labels": [["00000/img00000000.png", true]]}', "has the entry ['00000/img00000000."),
        (b'{"labels": 5}', "has the entry 5"),
        (b'{"labels": []}', "has no label for '00000/img00000000.png'"),
    ],
)
def test_dataset_json_that_does_not_label_the_images_is_refused(tmp_path, refused, index, said):
    files = edm_files()[0] | {"dataset.json": index}
    assert said in refused(write_zip(tmp_path / "e.zip", files))


def test_label_without_image_and_class_without_images_are_refused(tmp_path, refused):
    files = edm_files()[0]
    pairs = json.loads(files["dataset.json"])["labels"]
    files["dataset.json"] = json.dumps({"labels": [*pairs, ["00000/x.png", 0]]}).encode()
    assert "labels '00000/x.png', which is missing" in refused(write_zip(tmp_path / "e", files))
    pairs[0][1] = 9
    files["dataset.json"] = json.dumps({"labels": pairs}).encode()
    assert "no training image of class '4'" in refused(write_zip(tmp_path / "f", files))


class Evil:
    def __reduce__(self):
        return (__import__("os").mkdir, ("evil",))


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (pickle.dumps({b"data": Evil()}, protocol=2), "names posix.mkdir, which is not allowed"),
        (pickle.dumps({b"data": np.array([None])}, protocol=2), "arguments that do not fit"),
        (old_pickle([1]), "is not a batch"),
        (old_pickle({b"labels": [0]}), "has no 'data' of uint8"),
        (old_pickle({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}), "has no 'data' of uint8"),
        (old_pickle({b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 1]}), "rows of 3000"),
        (old_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
         "has 2 images and 1 labels"),
        (old_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}),
         "has the label 10, outside of 0..9"),
        (old_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}),
         "has the label -1, outside of 0..9"),
        (old_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}),
         "has no 'labels', a list of whole numbers"),
        (old_pickle({b"data": np.zeros((1, 3072), np.uint8)})[:500], "data_batch_3' cannot be"),
    ],
)  # fmt: skip
def test_unusable_batch_is_named_in_the_message(tmp_path, refused, batch, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = cifar_files()[0] | {"cifar-10-batches-py/data_batch_3": batch}
    assert said in refused(write_tar(tmp_path / "c.tar.gz", files, "w:gz"))
    assert not (tmp_path / "evil").exists()


def test_missing_batch_is_named_in_the_message(tmp_path, refused):
    files = cifar_files()[0]
    del files["cifar-10-batches-py/data_batch_4"]
    assert "it has no 'cifar-10-batches-py/data_batch_4'" in refused(
        write_folder(tmp_path / "c", files)
    )
    files = imagenet_files(npz=True)[0]
    del files["train_data_batch_4.npz"]
    assert "it has no batch 4" in refused(write_folder(tmp_path / "i", files))


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None, dtype: str | None = None) -> bytes:
    """An .npy file; its header may claim something else."""
    buffer = io.BytesIO()
    header = {"descr": dtype or array.dtype.str, "fortran_order": False,
              "shape": shape or array.shape}  # fmt: skip
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


DATA, LABELS = np.zeros((2, 192), np.uint8), np.array([1, 2])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            npz(data=npy(DATA, (10**12, 192)), labels=npy(LABELS)),
            "data.npy declares uint8 (1000000000000, 192), which is not the size",
        ),
        (
            npz(data=npy(DATA, (3, 192)), labels=npy(LABELS)),
            "declares uint8 (3, 192), which is not the size of its data",
        ),
        (npz(data=npy(DATA, (-1, 192)), labels=npy(LABELS)), "data.npy is empty: (-1, 192)"),
        (
            npz(data=npy(DATA), labels=npy(LABELS, dtype="|O")),
            "holds pickled objects, which could run code",
        ),
        (npz(data=npy(DATA)), "it has no labels"),
        (npz(data=npy(DATA), labels=npy(np.array([0, 1]))), "has the label 0, outside of 1..1"),
        (
            npz(data=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", labels=npy(LABELS)),
            "the header of data.npy is damaged or too long",
        ),
        (npz(data=b"\x93NUMPY\x09\x00", labels=npy(LABELS)), "is of version (9, 0)"),
        (npz(data=b"", labels=npy(LABELS)), "cannot be used: EOF: reading magic string"),
        (npz(data=npy(DATA), labels=npy(LABELS))[:-40], "damaged or cut off at 'train_data_batch"),
        (b"PK", "damaged or cut off at 'train_data_batch_1.npz'"),
    ],
)
def test_array_that_differs_from_its_header_is_refused(tmp_path, refused, content, said):
    assert said in refused(write_folder(tmp_path / "s", {"train_data_batch_1.npz": content}))


def test_batches_of_different_sizes_are_refused(tmp_path, refused):
    files = imagenet_files(npz=False)[0]
    files["val_data"] = pickle.dumps({"data": np.zeros((1, 48), np.uint8), "labels": [1]})
    assert "'val_data' has images of (3, 4, 4), 'train_data_batch_1' of (3, 8, 8)" in refused(
        write_folder(tmp_path / "s", files)
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train-images-idx3-ubyte", struct.pack(">IIII", 0x803, 30, 2**31, 2**31),
         "declares 138,350,580,552,821,637,120 bytes of images and holds 0"),
        ("train-images-idx3-ubyte", idx(pixels(30, (6, 5)))[:-1], "declares 900 bytes of images"),
        ("train-images-idx3-ubyte", idx(pixels(30, (6, 5))) + b"x", "holds more than it declares"),
        ("train-images-idx3-ubyte", idx(pixels(29, (6, 5))), "has 29 images, and 30 labels"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(90), "begins with 0x00000d03"),
        ("train-images-idx3-ubyte", b"\0\0", "is cut off"),
        ("train-labels-idx1-ubyte", struct.pack(">II", 0x801, 2**31),
         "declares 2,147,483,648 labels"),
        ("train-labels-idx1-ubyte", struct.pack(">II", 0x801, 30), "is cut off"),
        ("t10k-images-idx3-ubyte", idx(pixels(10, (7, 5))), "test images of (1, 7, 5)"),
        ("t10k-labels-idx1-ubyte", idx(np.full(10, 200)), "no training image of class"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(pixels(30, (6, 5), 1))), "has both"),
    ],
)  # fmt: skip
def test_idx_file_that_differs_from_its_header_is_refused(tmp_path, refused, name, content, said):
    files = idx_files(packed=False)[0] | {name: content}
    assert said in refused(write_folder(tmp_path / "m", files))


def test_idx_file_with_truncated_gzip_is_refused(tmp_path, refused):
    files = idx_files(packed=True)[0]
    files["train-images-idx3-ubyte.gz"] = files["train-images-idx3-ubyte.gz"][:-20]
    assert "damaged or cut off at 'train-images-idx3-ubyte.gz'" in refused(
        write_folder(tmp_path / "m", files)
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk"), MemoryError])
def test_stopped_preparation_leaves_nothing(tmp_path, root, monkeypatch, error):
    source = write_folder(tmp_path / "s", image_tree())
    seen = []

    def stop(*arguments):
        seen.append(sorted(p.name for p in root.iterdir()))
        raise error

    monkeypatch.setattr(module, "sha256", lambda path, *_: stop() if root in path.parents else "")
    with pytest.raises(error if isinstance(error, type) else type(error)):
        prepare(source, "tiny", Geometry(), root)
    assert len(seen[0]) == 1  # the work was under way, in one hidden folder
    assert seen[0][0].startswith(".tiny.")
    assert list(root.iterdir()) == []


def test_link_to_a_containing_folder_is_refused(tmp_path, refused):
    source = write_folder(tmp_path / "s", image_tree())
    (source / "train" / "loop").symlink_to(source)
    assert "is a link to a folder that contains it" in refused(source)


def test_preparation_does_not_start_if_the_disk_is_too_small(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert "needs 0.0 GB: name a folder with room" in refused(
        write_folder(tmp_path / "s", image_tree())
    )


@pytest.mark.parametrize("name", ["digits", "../x", "", ".x"])
def test_taken_or_invalid_data_set_name_is_refused(tmp_path, refused, name):
    text = refused(write_folder(tmp_path / "s", image_tree()), name)
    assert "is taken by a built-in" in text or "cannot be a folder" in text


def test_name_cifar10_is_refused_for_other_content(tmp_path, refused):
    tree = write_folder(tmp_path / "s", image_tree())
    assert "The name 'cifar10' is for the original pixels" in refused(tree, "cifar10")
    files = cifar_files()[0]
    assert "or resized" in refused(write_folder(tmp_path / "c", files), "cifar10", size=16)


def test_oversized_batch_is_refused_before_reading(tmp_path, refused):
    folder = write_folder(tmp_path / "c", cifar_files()[0])
    with (folder / "cifar-10-batches-py" / "test_batch").open("r+b") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    assert "test_batch' has 1,099,511,627,776 bytes" in refused(folder)


def test_sparse_tar_member_is_refused(tmp_path, refused):
    path = write_tar(tmp_path / "t.tar", image_tree(), "w:")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/cat/huge.png")
        info.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(info)
    assert "member 'train/cat/huge.png' that is not a plain file" in refused(path)
