"""A flipped bit in anything that is read back: found, or without effect."""

import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.evaluation.cache import ResultFiles, remembered_on_disk
from bench.evaluation.reference import reference_set
from bench.system.errors import UserError
from bench.training.checkpoint import (
    TrainingState,
    content_hash,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from metrics.extractors.training import stored_weights

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = {
    "w": torch.randn(3, 4, generator=GENERATOR),
    "half": torch.randn(5, generator=GENERATOR).bfloat16(),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 2),
}
STATE = TrainingState(
    step=70,
    weights=WEIGHTS,
    ema={"w": torch.randn(3, 4, generator=GENERATOR)},
    optimizer={"0/step": torch.tensor(7.0)},
    rollbacks=("The loss exploded: back to step 60",),
)


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


def same_state(a, b):
    parts = ("weights", "ema", "optimizer")
    about = (a.step, a.rollbacks) == (b.step, b.rollbacks)
    return about and all(same(getattr(a, p), getattr(b, p)) for p in parts)


def flipped(path):
    """Every file with one bit flipped, a bit a byte; yields the byte's place."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        yield place


def attempt(load, path):
    """What is loaded, or what is said instead."""
    try:
        return load(path), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("save", "load", "content", "equal"),
    [
        (save_weights, load_weights, WEIGHTS, same),
        (save_state, load_state, STATE, same_state),
    ],
)
def test_flipped_bits_of_a_checkpoint_are_found(tmp_path, save, load, content, equal):
    path = tmp_path / "c.safetensors"
    save(path, content)
    assert equal(load(path), content)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    found = set()
    for place in flipped(path):
        loaded, said = attempt(load, path)
        if said:
            assert said.startswith(f"Checkpoint {path} is cut short or damaged (")
            found.add(place)
        else:
            assert equal(loaded, content), place
    # Of the header's bytes only the padding, and the name of the checksum, may be anything.
    size = path.stat().st_size
    assert found >= set(range(header, size))
    assert len(found) > 0.8 * size


def test_changed_step_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, STATE)
    assert path.read_bytes().count(b'\\"step\\": 70') == 1
    path.write_bytes(path.read_bytes().replace(b'\\"step\\": 70', b'\\"step\\": 71'))
    with pytest.raises(UserError, match="does not match its stored SHA-256"):
        load_state(path)


def test_files_without_a_checksum_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(load_weights(tmp_path / "w.safetensors"), WEIGHTS)
    load_weights(tmp_path / "w.safetensors")
    save_file(WEIGHTS, tmp_path / "o.safetensors", metadata={"format": "pt", "sha256": "theirs"})
    assert same(load_weights(tmp_path / "o.safetensors"), WEIGHTS)
    tensors = {f"weights/{k}": v for k, v in WEIGHTS.items()}
    save_file(tensors, tmp_path / "s.safetensors", metadata={"state": '{"step": 3}'})
    state = load_state(tmp_path / "s.safetensors")
    assert (state.step, state.rollbacks, same(state.weights, WEIGHTS)) == (3, (), True)


def test_content_hash_covers_names_types_shapes_and_bytes():
    x = torch.arange(6.0)
    hashes = [
        content_hash({"a": x}),
        content_hash({"b": x}),
        content_hash({"a": x.view(2, 3)}),
        content_hash({"a": x.view(torch.int32)}),
        content_hash({"a": x.flip(0)}),
        content_hash({"a": x}, "about"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content_hash({"a": x.view(2, 3).T.contiguous().T.reshape(6)}) == hashes[0]
    assert content_hash({"a": x, "b": x}) == content_hash({"b": x, "a": x})


def test_flipped_bit_in_cached_results_is_logged_and_recomputed(tmp_path, caplog):
    def compute():
        return {"x": np.arange(20.0)}

    remembered_on_disk(tmp_path, "r", {"k": 1}, compute)
    assert caplog.messages == []  # what is not there yet is no damage
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    said = 0
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        caplog.clear()
        found = remembered_on_disk(tmp_path, "r", {"k": 1}, compute)["x"]
        assert np.array_equal(found, np.arange(20.0)), place
        said += len(caplog.messages)
        if caplog.messages:
            assert caplog.messages == [f"{path} is cut short or damaged: it is computed again."]
            assert caplog.records[0].levelno == logging.WARNING
            assert remembered_on_disk(tmp_path, "r", {"k": 1}, compute)["x"][3] == 3.0
            assert len(caplog.messages) == 1
    assert said > 10


def test_flipped_bit_in_extractor_weights_is_logged_and_fixed(tmp_path, caplog):
    trained = []

    def train():
        trained.append(1)
        return {"w": torch.arange(5.0)}

    def ask():
        return stored_weights(ResultFiles(tmp_path), "key", "about", train)

    assert same(ask(), ask())
    assert (len(trained), caplog.messages) == (1, [])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(5.0).numpy().tobytes()) + 3] ^= 4
    path.write_bytes(content)
    assert same(ask(), {"w": torch.arange(5.0)})
    assert len(trained) == 2
    assert [m.startswith(f"{path} is cut short or damaged") for m in caplog.messages] == [True]


def test_flipped_bit_in_the_real_set_is_logged_and_recomputed(tmp_path, caplog):
    fed = []

    def feed(accumulator):
        fed.append(1)
        accumulator.update(torch.arange(8.0).view(4, 2), torch.zeros(4, dtype=torch.long))

    def ask():
        return reference_set(tmp_path, "toy", "hash", {}, ["features"], feed)

    ask()
    assert (len(fed), caplog.messages) == (1, [])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert ask().n == 4
    assert len(fed) == 2
    assert [m.startswith(f"{path} is cut short or damaged") for m in caplog.messages] == [True]
    assert ask().n == 4
    assert len(fed) == 2
