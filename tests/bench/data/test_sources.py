import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from bench.data.find import find_dataset
from bench.data.prepared import PreparedDataset
from bench.data.published import CIFAR10_CLASSES, check_class_order
from bench.system.errors import UserError
from tests.bench.data.makers import (
    TREE_CLASSES,
    cifar_files,
    edm_files,
    encoded,
    idx_files,
    image_tree,
    imagenet_files,
    old_pickle,
    pixels,
    write_folder,
    write_tar,
    write_zip,
)


def content(split) -> list[tuple[bytes, int]]:
    """Every image with its label, sorted."""
    samples = split.samples[:].numpy()
    return sorted((image.tobytes(), int(k)) for image, k in zip(samples, split.labels, strict=True))


def expected(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(k)) for image, k in zip(images, labels, strict=True))


def hashes(data: PreparedDataset) -> tuple[str, ...]:
    card = data.card
    return card.images_sha256, card.labels_sha256, card.train_hash, card.reference_hash


def test_cifar_archive_and_folder_give_the_pixels_of_the_batches(
    tmp_path, prepared, published_size
):
    published_size(100, 20)
    files, images, labels = cifar_files()
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", files, "w:gz")
    data = prepared(archive, "cifar10")
    assert content(data.train) == expected(images[:100], labels[:100])
    assert content(data.reference) == expected(images[100:], labels[100:])
    assert data.class_names == CIFAR10_CLASSES
    assert (data.card.title, data.card.lossy, data.card.kind) == ("CIFAR-10", False, "cifar")
    assert data.card.reference_from == "test"
    write_folder(tmp_path / "un", files)
    assert hashes(prepared(tmp_path / "un" / "cifar-10-batches-py", "f")) == hashes(data)


def test_cifar_100_uses_fine_labels(tmp_path, prepared):
    images, labels = pixels(12, (3, 32, 32)), np.arange(12) % 3
    files = {
        f"cifar-100-python/{name}": old_pickle(
            {
                b"data": images[rows].reshape(-1, 3072),
                b"fine_labels": labels[rows].tolist(),
                b"coarse_labels": [0] * len(labels[rows]),
            }
        )
        for name, rows in (("train", slice(0, 9)), ("test", slice(9, 12)))
    }
    files["cifar-100-python/meta"] = old_pickle({b"fine_label_names": [b"apple", b"bee", b"cup"]})
    data = prepared(write_folder(tmp_path / "c100", files))
    assert content(data.train) == expected(images[:9], labels[:9])
    assert content(data.reference) == expected(images[9:], labels[9:])
    assert data.class_names == ("apple", "bee", "cup")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_of_every_pickle_protocol_are_read(tmp_path, prepared, protocol):
    images, labels = pixels(20), np.arange(20) % 2
    batch = {"data": images.reshape(20, -1), "labels": (labels + 1).astype(np.int16)}
    files = {"train_data_batch_1": pickle.dumps(batch, protocol=protocol)}
    data = prepared(write_folder(tmp_path / "source", files))
    assert sorted(content(data.train) + content(data.reference)) == expected(images, labels)


@pytest.mark.parametrize("npz", [False, True])
def test_imagenet_batches_follow_their_numbers_and_count_classes_from_one(tmp_path, prepared, npz):
    files, images, labels = imagenet_files(npz)
    data = prepared(write_folder(tmp_path / "source", files))
    assert content(data.train) == expected(images[:44], labels[:44])
    assert content(data.reference) == expected(images[44:], labels[44:])
    assert data.class_names == ("1", "2", "3", "4", "5")
    assert data.card.reference_from == "val"


def test_pickled_and_zipped_batches_are_the_same_data_set(tmp_path, prepared):
    both = [
        prepared(write_folder(tmp_path / name, imagenet_files(npz)[0]), name)
        for name, npz in (("pickles", False), ("arrays", True))
    ]
    assert hashes(both[0]) == hashes(both[1])


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_give_grey_images(tmp_path, prepared, packed):
    files, images, labels = idx_files(packed)
    data = prepared(write_folder(tmp_path / "mnist", files))
    assert content(data.train) == expected(images[:30], labels[:30])
    assert content(data.reference) == expected(images[30:], labels[30:])
    assert data.spec.shape == (1, 6, 5)


def test_labels_come_from_dataset_json(tmp_path, prepared):
    files, images, labels = edm_files()
    data = prepared(write_zip(tmp_path / "edm.zip", files), "zipped")
    assert sorted(content(data.train) + content(data.reference)) == expected(images, labels)
    assert hashes(prepared(write_folder(tmp_path / "edm", files), "folder")) == hashes(data)


def test_hold_out_is_a_tenth_and_balanced_over_classes(tmp_path, prepared):
    files, _, _ = edm_files(120)
    data = prepared(write_zip(tmp_path / "edm.zip", files))
    assert (len(data.train), len(data.reference)) == (108, 12)
    assert np.bincount(data.reference.labels).tolist() == [3, 3, 3, 3]
    assert data.card.reference_from == "hold-out"
    assert (data.card.train, data.card.reference) == ((0, 108), (108, 120))
    shared = {image for image, _ in content(data.train)} & {i for i, _ in content(data.reference)}
    assert not shared


def test_folder_and_its_archives_give_the_same_data_set(tmp_path, prepared):
    files = image_tree()
    sources = {
        "folder": write_folder(tmp_path / "folder", files),
        "zip": write_zip(tmp_path / "some.bin", files),
        **{kind: write_tar(tmp_path / f"{kind}.bin", files, f"w:{kind}") for kind in
           ("xz", "gz", "bz2")},
        "tar": write_tar(tmp_path / "plain.bin", files, "w:"),
        "deeper": write_tar(
            tmp_path / "deep.tar", {f"a/b/{name}": f for name, f in files.items()}, "w:"
        ),
    }  # fmt: skip
    found = {name: hashes(prepared(source, name)) for name, source in sources.items()}
    assert set(found.values()) == {found["folder"]}
    data = PreparedDataset(tmp_path / "root" / "tar")
    assert data.class_names == TREE_CLASSES
    for k in range(3):
        for split, seed in ((data.train, k), (data.reference, 10 + k)):
            kept = split.samples[split.labels == k].numpy()
            images = pixels(6, seed=seed)
            assert {i.tobytes() for i in kept} == {i.tobytes() for i in images}


def test_first_rows_contain_every_class(tmp_path, prepared):
    data = prepared(write_folder(tmp_path / "source", image_tree(per_class=40)))
    for split in (data.train, data.reference):
        assert set(split.labels[:30].tolist()) == {0, 1, 2}


def test_images_without_splits_have_one_class_or_several(tmp_path, prepared):
    data = prepared(write_folder(tmp_path / "several", image_tree(10, split=False)), "several")
    assert (len(data.train), len(data.reference)) == (27, 3)
    one = {f"root/cat/{i}.png": encoded(image) for i, image in enumerate(pixels(20))}
    data = prepared(write_folder(tmp_path / "one", one), "one")
    assert data.class_names == ("cat",)


def test_further_split_is_skipped_and_counted(tmp_path, prepared):
    files = image_tree()
    files |= {
        name.replace("test/", "val/"): f for name, f in files.items() if name.startswith("test/")
    }
    data = prepared(write_folder(tmp_path / "source", files))
    assert (len(data.train), len(data.reference), data.card.left_out) == (18, 18, 18)
    assert data.card.reference_from == "test"


def test_grey_palette_and_cmyk_images_become_rgb_and_are_counted(tmp_path, prepared):
    files = image_tree()
    grey = pixels(1, (1, 8, 8))[0]
    # The first by name, so that a set that starts grey is still found to be in colour.
    files["train/cat/000.png"] = encoded(grey)
    files["train/cat/001.png"] = encoded(pixels(1)[0], mode="P")
    files["train/dog/000.png"] = encoded(pixels(1)[0], "JPEG", mode="CMYK")
    data = prepared(write_folder(tmp_path / "source", files))
    assert dict(data.card.converted) == {"CMYK": 1, "L": 1, "P": 1}
    assert data.spec.shape == (3, 8, 8)
    assert np.repeat(grey, 3, axis=0).tobytes() in {image for image, _ in content(data.train)}
    assert data.card.lossy


def test_grey_set_stays_grey(tmp_path, prepared):
    data = prepared(write_folder(tmp_path / "source", image_tree(shape=(1, 8, 8))))
    assert data.spec.shape == (1, 8, 8)
    assert not data.card.converted


@pytest.mark.parametrize("resize", ["box", "bicubic"])
@pytest.mark.parametrize("crop", ["center", "none"])
def test_images_are_cropped_and_resized_by_pillow(tmp_path, prepared, crop, resize):
    files = image_tree(shape=(3, 20, 31))
    data = prepared(write_folder(tmp_path / "s", files), size=8, crop=crop, resize=resize)
    kinds = {"box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}
    image = Image.fromarray(pixels(6, (3, 20, 31), seed=0)[0].transpose(1, 2, 0))
    if crop == "center":
        image = image.crop((5, 0, 25, 20))
    small = np.asarray(image.resize((8, 8), kinds[resize])).transpose(2, 0, 1)
    assert small.tobytes() in {image for image, _ in content(data.train)}
    assert (data.card.size, data.card.crop, data.card.resize) == (8, crop, resize)


def test_box_filter_over_whole_pixels_is_their_mean(tmp_path, prepared):
    files = image_tree(shape=(3, 16, 16))
    data = prepared(write_folder(tmp_path / "source", files), size=8)
    image = pixels(6, (3, 16, 16), seed=0)[0].astype(float)
    mean = image.reshape(3, 8, 2, 8, 2).mean(axis=(2, 4))
    samples = data.train.samples[data.train.labels == 0].numpy()
    # Pillow rounds after each of two passes.
    assert min(np.abs(sample - mean).max() for sample in samples) <= 1


def test_arrays_are_resized_like_images(tmp_path, prepared):
    files, images, _ = idx_files(packed=False)
    data = prepared(write_folder(tmp_path / "mnist", files), size=4, crop="none")
    small = np.asarray(Image.fromarray(images[0, 0]).resize((4, 4), Image.Resampling.BOX))
    assert small.tobytes() in {image for image, _ in content(data.train)}


def test_jpeg_is_marked_lossy_and_refused_as_cifar10(tmp_path, prepared, root, published_size):
    published_size(20, 20)
    files = {
        f"{split}/{name}/{i}.jpg": encoded(image, "JPEG")
        for split in ("train", "test")
        for name in CIFAR10_CLASSES
        for i, image in enumerate(pixels(2, (3, 32, 32)))
    }
    archive = write_tar(tmp_path / "cifar10.tar.xz", files)
    with pytest.raises(UserError, match=r"'cifar10' is for the original.*such as .*cifar10-jpeg"):
        prepared(archive, "cifar10")
    assert list(root.iterdir()) == []
    data = prepared(archive, "cifar10-jpeg")
    assert data.card.title == "CIFAR-10 (JPEG)"
    assert data.summary.startswith("CIFAR-10 (JPEG): 20 training")
    assert data.class_names == CIFAR10_CLASSES


def test_directories_and_other_files_in_an_archive_are_ignored(tmp_path, prepared):
    plain = prepared(write_folder(tmp_path / "plain", image_tree()), "plain")
    archive = write_tar(tmp_path / "more.tar", {**image_tree(), "README.txt": b"x"}, "w:")
    with tarfile.open(archive, "a") as more:
        info = tarfile.TarInfo("train/empty")
        info.type = tarfile.DIRTYPE
        more.addfile(info)
    assert hashes(prepared(archive, "more")) == hashes(plain)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-uncond"])
def test_part_of_cifar10_has_another_name_and_title(tmp_path, prepared, name):
    """The files have all batches, and too few images."""
    source = write_folder(tmp_path / "cifar-10-batches-py", cifar_files()[0])
    said = (
        rf"'{name}' is for the original pixels of CIFAR-10 with all its 50,000 training and "
        r"10,000 test images.*this has 100 training and 20 reference images: use another name, "
        rf"such as --dataset {name}-part"
    )
    with pytest.raises(UserError, match=said):
        prepared(source, name)
    assert prepared(source, "cifar10-part").card.title == "cifar10-part"


def test_half_of_downsampled_imagenet_is_not_imagenet64(tmp_path, prepared, published_size):
    """Batches 1..5 of 10 are complete by their numbers."""
    files = imagenet_files(npz=False)[0]
    half = {name: f for name, f in files.items() if name == "val_data" or int(name[17:]) <= 5}
    published_size(44, 6, "imagenet64", shape=(3, 8, 8), classes=5)
    with pytest.raises(UserError, match="this has 20 training and 6 reference images"):
        prepared(write_folder(tmp_path / "half", half), "imagenet64")
    data = prepared(write_folder(tmp_path / "whole", files), "imagenet64")
    assert len(data.train) == 44
    # A set that was prepared before its name was kept for the whole one.
    published_size(88, 6, "imagenet64")
    with pytest.raises(UserError, match="this has 44 training and 6 reference images"):
        find_dataset("imagenet64")


def test_class_order_of_imported_networks_is_checked():
    ids = ("n01440764", "n02102040", "n03000684")
    assert check_class_order("cifar10", CIFAR10_CLASSES) == ""
    assert check_class_order("imagenet64", ids) == ""
    assert check_class_order("golden", ()) == ""
    with pytest.raises(UserError, match="'n02102040' as number 0, where official networks have"):
        check_class_order("imagenet64", (ids[1], ids[0], ids[2]))
    with pytest.raises(UserError, match="'truck' as number 0, where official networks have 'airp"):
        check_class_order("mine", CIFAR10_CLASSES[::-1])
    assert "(1, 2, 3, ...) do not show their order" in check_class_order(
        "imagenet64", tuple(map(str, range(1, 1001)))
    )
