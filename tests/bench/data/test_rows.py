"""Rows of a file are those of the tensor, as long as the file is there."""

import errno
import os

import numpy as np
import pytest
import torch

from bench.data import rows as module
from bench.data.rows import FileRows
from bench.system.errors import UserError
from tests.bench.data.makers import pixels

N = 20


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", pixels(N))
    return tmp_path / "x.npy"


INDICES = [
    slice(None),
    slice(3, 7),
    slice(-4, None),
    slice(7, 3),
    slice(1, 30, 4),
    slice(0, 0),
    torch.tensor([4, 4, 0, N - 1]),
    torch.tensor([-1, 2]),
    torch.tensor([], dtype=torch.int64),
    torch.arange(N) % 3 == 0,
]


def whole(path):
    return torch.from_numpy(np.load(path))


@pytest.mark.parametrize("preadv", [True, False])
def test_rows_are_indexed_like_a_tensor(path, preadv, monkeypatch):
    if not preadv:
        monkeypatch.delattr(os, "preadv", raising=False)
    rows, tensor = FileRows.open(path), whole(path)
    assert (rows.shape, rows.ndim, rows.dtype, len(rows)) == (tensor.shape, 4, torch.uint8, N)
    for index in INDICES:
        assert torch.equal(rows[index], tensor[index]), index
    for start, stop in ((0, 5), (5, N), (5, 5), (9, 99), (12, 3)):
        part = rows.part(start, stop)
        assert part.shape == tensor[start:stop].shape
        assert torch.equal(part[:], tensor[start:stop])
    inner = rows.part(5, 15).part(2, 6)
    assert torch.equal(inner[torch.tensor([3, 0])], tensor[[10, 7]])


@pytest.mark.parametrize("row", [N, -N - 1])
def test_index_outside_a_part_is_an_error(path, row):
    with pytest.raises(IndexError):
        FileRows.open(path)[torch.tensor([0, row])]
    with pytest.raises(IndexError):
        FileRows.open(path).part(2, 4)[torch.tensor([2])]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_values_of_other_types(tmp_path, dtype):
    array = np.arange(12, dtype=dtype)
    np.save(tmp_path / "y.npy", array)
    assert FileRows.open(tmp_path / "y.npy")[2:5].tolist() == array[2:5].tolist()


def test_other_byte_order_is_refused(tmp_path):
    np.save(tmp_path / "y.npy", np.arange(3, dtype=np.dtype(np.int64).newbyteorder()))
    with pytest.raises(ValueError, match="another byte order"):
        FileRows.open(tmp_path / "y.npy")


def test_unlinked_file_stays_readable_and_is_closed_at_the_end(path):
    tensor, rows = whole(path), FileRows.open(path)
    part = rows.part(3, 6)
    handle = rows._file._handle
    path.unlink()
    del rows
    assert torch.equal(part[:], tensor[3:6])
    del part
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_reading_rows_of_a_truncated_file_gives_one_sentence(path):
    tensor, rows = whole(path), FileRows.open(path)
    os.truncate(path, path.stat().st_size - 1)
    assert torch.equal(rows[: N - 1], tensor[: N - 1])
    for index in (slice(None), torch.tensor([0, N - 1])):
        with pytest.raises(UserError, match="ends before its last row") as caught:
            rows[index]
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.EBADF])
def test_failing_disk_gives_one_sentence(path, number, monkeypatch):
    rows = FileRows.open(path)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "_read_at", fail)
    with pytest.raises(UserError, match="Run the same command to continue") as caught:
        rows[:1]
    assert f"{path} cannot be read any more: {os.strerror(number)}." in str(caught.value)


def test_short_reads_are_joined(path, monkeypatch):
    rows, real = FileRows.open(path), module._read_at
    monkeypatch.setattr(module, "_read_at", lambda h, room, at: real(h, room[:7], at))
    assert torch.equal(rows[torch.tensor([3, 1])], whole(path)[[3, 1]])
