"""Layouts of data sets as people have them on disk."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from bench.evaluation.sides import file_source
from bench.system.errors import UserError
from tests.bench.data.makers import (
    encoded,
    idx,
    idx_files,
    image_tree,
    pixels,
    write_folder,
    write_tar,
    write_zip,
)

CLASSES = ("n01440764", "n02102040", "n03000684")


def images_of(split) -> list[tuple[bytes, int]]:
    samples = split.samples[:].numpy()
    return sorted((x.tobytes(), int(k)) for x, k in zip(samples, split.labels, strict=True))


def expected(seeds, per_class) -> list[tuple[bytes, int]]:
    return sorted(
        (x.tobytes(), k) for k, seed in enumerate(seeds) for x in pixels(per_class, seed=seed)
    )


def training(folder: str, inside: str = "") -> dict[str, bytes]:
    return {
        f"{folder}{name}/{inside}{name}_{i}.png": encoded(x)
        for k, name in enumerate(CLASSES)
        for i, x in enumerate(pixels(7, seed=k))
    }


def validation(folder: str, stem: str = "val_{}.png") -> tuple[dict[str, bytes], list[int]]:
    """Nine images without folders of classes, whose names say nothing."""
    labels = [2, 0, 1] * 3
    every = {k: iter(pixels(3, seed=10 + k)) for k in range(3)}
    files = {f"{folder}{stem.format(i)}": encoded(next(every[k])) for i, k in enumerate(labels)}
    return files, labels


def tiny_imagenet() -> dict[str, bytes]:
    files, labels = validation("tiny-imagenet-200/val/images/")
    lines = [f"val_{i}.png\t{CLASSES[k]}\t0\t32\t44\t62" for i, k in enumerate(labels)]
    test = {f"tiny-imagenet-200/test/images/test_{i}.png": encoded(x)
            for i, x in enumerate(pixels(4, seed=50))}  # fmt: skip
    return {
        **training("tiny-imagenet-200/train/", "images/"), **files, **test,
        "tiny-imagenet-200/val/val_annotations.txt": "\n".join(lines).encode(),
        "tiny-imagenet-200/words.txt": b"n01440764\ttench",
    }  # fmt: skip


def kaggle() -> dict[str, bytes]:
    files, labels = validation("ILSVRC/Data/CLS-LOC/val/", "ILSVRC2012_val_{:08}.png")
    lines = ["ImageId,PredictionString"]
    lines += [
        f"ILSVRC2012_val_{i:08},{CLASSES[k]} 111 108 230 170 {CLASSES[k]} 1 2 3 4 "
        for i, k in enumerate(labels)
    ]
    test = {f"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_{i:08}.png": encoded(x)
            for i, x in enumerate(pixels(4, seed=50))}  # fmt: skip
    csv = {"LOC_val_solution.csv": "\n".join(lines).encode()}
    return {**training("ILSVRC/Data/CLS-LOC/train/"), **files, **test, **csv}


@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
@pytest.mark.parametrize("make", [tiny_imagenet, kaggle])
def test_flat_validation_images_have_the_classes_of_their_table(tmp_path, prepared, make, write):
    data = prepared(write(tmp_path / "source", make()))
    assert data.class_names == CLASSES
    assert images_of(data.train) == expected(range(3), 7)
    assert images_of(data.reference) == expected(range(10, 13), 3)
    assert (data.card.reference_from, data.card.left_out) == ("val", 4)
    assert "val_annotations" not in data.card.ignored
    assert "solution" not in data.card.ignored


def test_flat_validation_images_without_a_table_are_left_out(tmp_path, prepared):
    files = {name: f for name, f in kaggle().items() if not name.endswith(".csv")}
    data = prepared(write_folder(tmp_path / "source", files))
    assert data.card.reference_from == "hold-out"
    assert data.card.left_out == 13


def test_table_that_lacks_an_image_is_refused(tmp_path, prepared):
    files = kaggle()
    files["LOC_val_solution.csv"] = files["LOC_val_solution.csv"].replace(b"val_00000004", b"val_x")
    with pytest.raises(UserError, match=r"no class for .*val_00000004"):
        prepared(write_folder(tmp_path / "source", files))


def inner_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_of_tars() -> dict[str, bytes]:
    return {
        f"{name}.tar": inner_tar(
            {f"{name}_{i}.png": encoded(x) for i, x in enumerate(pixels(20, seed=k))}
        )
        for k, name in enumerate(CLASSES)
    }


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_tar_of_a_tar_per_class_is_read(tmp_path, prepared, mode):
    path = write_tar(tmp_path / "ILSVRC2012_img_train.tar", tar_of_tars(), mode)
    data = prepared(path)
    assert data.class_names == CLASSES
    found = sorted(images_of(data.train) + images_of(data.reference))
    assert found == expected(range(3), 20)
    side = file_source(path)
    assert side.classes.names == CLASSES
    read = sorted(
        (x.tobytes(), k)
        for xs, ys in side.batches()
        for x, k in zip(xs.numpy(), ys.tolist(), strict=True)
    )
    assert read == found


def test_tar_in_a_tar_is_checked_like_the_outer_one(tmp_path, prepared):
    def refused(content):
        with pytest.raises(UserError) as caught:
            prepared(write_tar(tmp_path / "t.tar", tar_of_tars() | {"x.tar": content}, "w:"))
        return str(caught.value)

    assert "would leave its folder" in refused(inner_tar({"../evil.png": b"x"}))
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        archive.addfile(info)
    assert "has a link as its member 'x/a.png'" in refused(buffer.getvalue())
    assert "damaged or cut off" in refused(inner_tar({"a.png": bytes(3000)})[:1000])
    assert "damaged or cut off" in refused(b"nothing" * 100)


def test_mnist_in_both_forms_is_read_once(tmp_path, prepared):
    """As torchvision leaves it in MNIST/raw."""
    files, images, labels = idx_files(packed=False)
    both = {f"MNIST/raw/{name}": f for name, f in files.items()}
    both |= {f"{name}.gz": gzip.compress(f) for name, f in both.items()}
    data = prepared(write_folder(tmp_path / "mnist", both))
    assert len(data.train) == 30
    assert {x for x, _ in images_of(data.train)} == {x.tobytes() for x in images[:30]}
    assert sorted(data.train.labels.tolist()) == sorted(labels[:30].tolist())


def emnist(name="letters", packed=True) -> dict[str, bytes]:
    files, _, labels = idx_files(packed=False)
    rows = {"train": slice(0, 30), "t10k": slice(30, 40)}
    for split, some in rows.items():
        files[f"{split}-labels-idx1-ubyte"] = idx(labels[some] + 1)
    return {
        f"emnist-{name}-{n.replace('t10k', 'test')}.gz": gzip.compress(f) for n, f in files.items()
    }


def test_emnist_labels_start_at_one(tmp_path, prepared):
    data = prepared(write_folder(tmp_path / "emnist", emnist()))
    assert data.class_names == ("1", "2", "3")
    assert set(data.train.labels.tolist()) == {0, 1, 2}
    with pytest.raises(UserError, match=r"emnist-digits-train-\.\.\. and emnist-letters-train"):
        prepared(write_folder(tmp_path / "emnist", emnist("digits")), "both")


def test_numbered_class_folders_are_in_the_order_of_numbers(tmp_path, prepared):
    files = {f"{k}/{i}.png": encoded(x) for k in range(12) for i, x in enumerate(pixels(9, seed=k))}
    data = prepared(write_folder(tmp_path / "source", files))
    assert data.class_names == tuple(map(str, range(12)))
    found = sorted(images_of(data.train) + images_of(data.reference))
    assert found == expected(range(12), 9)


def test_images_in_folders_of_a_class_belong_to_it(tmp_path):
    files = image_tree(6, split=False) | {"cat/more/x.png": encoded(pixels(1, seed=99)[0])}
    side = file_source(write_folder(tmp_path / "source", files))
    assert side.classes.names == ("cat", "dog", "eel")
    assert np.bincount(side.classes.labels).tolist() == [7, 6, 6]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_vectors_of_every_float_type_are_read(tmp_path, dtype):
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(dtype)
    np.savez(tmp_path / "v.npz", arr_0=x)
    found = np.concatenate([x.numpy() for x, _ in file_source(tmp_path / "v.npz").batches()])
    assert found.dtype == np.float32
    assert np.array_equal(found, x.astype(np.float32))
