import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import bench.data.prepared as module
from bench.data import Split
from bench.data.card import CARD, IMAGES, LABELS, STAMP, read_data_card
from bench.data.find import find_dataset
from bench.data.prepared import PreparedDataset, verify
from bench.data.rows import FileRows
from bench.system.errors import UserError
from metrics import EXTRACTORS
from tests.bench.data.makers import image_tree, pixels, write_folder, write_tar

MAPS = Path("/proc/self/maps")


@pytest.fixture
def tiny(tmp_path, prepared):
    return prepared(write_tar(tmp_path / "tiny.tar.xz", image_tree()))


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed from now on."""
    names, real = [], module.sha256
    monkeypatch.setattr(module, "sha256", lambda path, *_: names.append(path.name) or real(path))
    return names


@pytest.fixture
def large(monkeypatch):
    """Every data set counts as too large to be hashed at every start."""
    monkeypatch.setattr(module, "HASHED_AT_EVERY_START", 0)


def flip(path, offset=-1):
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def rot(path):
    """Change one byte, and put the time of the last change back."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_card_records_content_and_origin(tiny, tmp_path):
    card = read_data_card(tiny.folder)
    source = tmp_path / "tiny.tar.xz"
    assert card.source == "tiny.tar.xz"
    assert card.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    for name, known in ((IMAGES, card.images_sha256), (LABELS, card.labels_sha256)):
        assert hashlib.sha256((tiny.folder / name).read_bytes()).hexdigest() == known
    assert (card.n, card.shape, card.train, card.reference) == (36, (3, 8, 8), (0, 18), (18, 36))
    assert sorted(p.name for p in tiny.folder.iterdir()) == [CARD, IMAGES, LABELS, STAMP]


def test_recorded_hashes_equal_the_computed_ones(tiny):
    for split in (tiny.train, tiny.reference):
        assert split.known_hash
        assert Split(split.samples, split.labels).hash == split.hash
    assert tiny.train.hash != tiny.reference.hash


def test_split_hash_does_not_depend_on_the_block_size():
    samples, labels = torch.from_numpy(pixels(5000, (1, 2, 2))), torch.arange(5000)
    whole = hashlib.sha256(b"(5000, 1, 2, 2) torch.uint8")
    whole.update(samples.numpy().tobytes() + labels.numpy().tobytes())
    assert Split(samples, labels).hash == whole.hexdigest()


def test_pixels_are_read_on_demand(tiny):
    images = np.load(tiny.folder / IMAGES)
    for split, start in ((tiny.train, 0), (tiny.reference, 18)):
        assert isinstance(split.samples, FileRows)
        assert split.samples.shape == (18, 3, 8, 8)
        assert np.array_equal(split.samples[2:5].numpy(), images[start + 2 : start + 5])
    if not MAPS.exists():
        pytest.skip("this system does not tell what is mapped")
    assert str(tiny.folder) not in MAPS.read_text()


def test_writing_to_a_sample_does_not_change_the_file(tiny):
    before = (tiny.folder / IMAGES).read_bytes()
    tiny.train.samples[:][0] = 0
    assert (tiny.folder / IMAGES).read_bytes() == before


def test_start_hashes_a_large_file_only_after_a_change(tiny, hashed, large):
    find_dataset("tiny").train  # noqa: B018
    assert hashed == []
    os.utime(tiny.folder / IMAGES)
    find_dataset("tiny").train  # noqa: B018
    assert hashed == [IMAGES, LABELS]
    find_dataset("tiny").train  # noqa: B018
    assert hashed == [IMAGES, LABELS]


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_next_start_finds_a_changed_byte(tiny, name):
    flip(tiny.folder / name)
    for _ in range(2):  # what was found wrong is never taken for right
        with pytest.raises(UserError, match=f"{name} has changed since it was prepared"):
            find_dataset("tiny")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_start_finds_a_change_with_the_same_size_and_time(tiny, name):
    assert module.HASHED_AT_EVERY_START == 256 << 20
    rot(tiny.folder / name)
    for _ in range(2):
        with pytest.raises(UserError, match=f"{name} has changed since it was prepared"):
            find_dataset("tiny")


def test_start_hashes_files_up_to_the_limit(tiny, hashed, monkeypatch):
    size = (tiny.folder / IMAGES).stat().st_size
    for limit, expected in ((size, [IMAGES, LABELS]), (size - 1, [])):
        hashed.clear()
        monkeypatch.setattr(module, "HASHED_AT_EVERY_START", limit)
        find_dataset("tiny")
        assert hashed == expected


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_verify_finds_a_change_of_large_files_with_the_same_size_and_time(tiny, name, large):
    rot(tiny.folder / name)
    if name == IMAGES:  # a label that no class has is found at once
        find_dataset("tiny")
    with pytest.raises(UserError, match=f"{name} has changed since it was prepared"):
        verify(tiny.folder)


def test_verify_finds_a_wrong_hash_in_the_card(tiny):
    card = json.loads((tiny.folder / CARD).read_text())
    (tiny.folder / CARD).write_text(json.dumps(card | {"reference_hash": "0" * 64}))
    with pytest.raises(UserError, match="The reference hash in"):
        verify(tiny.folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "is not a data set's card of this version"),
        ({"unknown": 1}, "is not a data set's card of this version"),
        ({"n": 35}, "does not match its card"),
        ({"shape": [3, 4, 16]}, "does not match its card"),
        ({"name": "other"}, "holds the data set 'other': a prepared data set keeps its name"),
    ],
)
def test_card_that_does_not_match_is_refused(tiny, change, said):
    card = json.loads((tiny.folder / CARD).read_text())
    (tiny.folder / CARD).write_text(json.dumps(card | change))
    with pytest.raises(UserError, match=said):
        find_dataset("tiny")


def test_renamed_folder_is_refused(tiny, root):
    shutil.move(tiny.folder, root / "cifar10")
    with pytest.raises(UserError, match="a prepared data set keeps its name"):
        find_dataset("cifar10")


def test_missing_damaged_and_object_files_give_one_sentence(tiny):
    np.save(tiny.folder / LABELS, np.array([None]), allow_pickle=True)
    with pytest.raises(UserError, match="has changed since"):
        find_dataset("tiny")
    (tiny.folder / LABELS).unlink()
    with pytest.raises(UserError, match=r"Cannot read .*labels\.npy"):
        find_dataset("tiny")


def test_damaged_stamp_is_rewritten(tiny, hashed, large):
    (tiny.folder / STAMP).write_text("[")
    find_dataset("tiny")
    assert hashed == [IMAGES, LABELS]
    find_dataset("tiny")
    assert len(hashed) == 2


def test_default_samples_and_extractors(tiny, tmp_path, prepared, monkeypatch):
    assert tiny.default_samples == 18
    assert tiny.extractors == ("classifier",)
    files = image_tree(shape=(3, 32, 32))
    large = prepared(write_folder(tmp_path / "large", files), "large")
    monkeypatch.delitem(EXTRACTORS, "efficientnet-lite0", raising=False)
    assert PreparedDataset(large.folder).extractors == ("classifier",)
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", None)
    assert PreparedDataset(large.folder).extractors == ("efficientnet-lite0", "classifier")
    assert PreparedDataset(tiny.folder).extractors == ("classifier",)


def test_unknown_names_list_the_prepared_ones_and_say_how_to_prepare(tiny, monkeypatch):
    with pytest.raises(UserError, match=r"Did you mean 'tiny'\? Available: .*modes2d, tiny\."):
        find_dataset("tinny")
    from methods import METHODS, Preset

    edm = METHODS["edm"]
    wanted = edm.presets["digits"].model_copy(update={"dataset": "cifar10"})
    assert isinstance(wanted, Preset)
    monkeypatch.setattr(edm, "presets", {**edm.presets, "cifar10": wanted})
    with pytest.raises(UserError, match="bench data prepare SOURCE --dataset cifar10"):
        find_dataset("cifar10")
