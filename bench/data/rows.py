"""Rows of an array on disk, read on demand.

If a memory-mapped file is cut short or its disk is gone, a signal that nothing can catch ends the
process, or zeros are read. A read call reports the error and is no slower: a page fault costs more.
"""

from __future__ import annotations

import errno
import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.untrusted import read_header
from bench.system.errors import UserError
from bench.system.failures import ADVICE, KEPT
from bench.system.files import check_regular

CPU = torch.device("cpu")


class Unreadable(UserError):
    """A file that was readable when it was opened cannot be read any more."""


class FileRows:
    """The rows of an .npy file, (N, ...), indexed like a tensor.

    Slices and index tensors give tensors on the CPU, copies of the file's current content; `part`
    reads nothing. The file is kept open, so that its name may be removed. Reading raises Unreadable
    if the file has become shorter, or if the disk or its mount fails.
    """

    device = CPU

    def __init__(self, file: _File, start: int, stop: int) -> None:
        self._file, self._start, self._n = file, start, stop - start

    @classmethod
    def open(cls, path: Path) -> FileRows:
        """All rows of a file; OSError or ValueError, with the reason, for an unsuitable file."""
        file = _File(path)
        return cls(file, 0, file.shape[0])

    @property
    def shape(self) -> torch.Size:
        """(N, ...)."""
        return torch.Size((self._n, *self._file.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._file.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of a value."""
        return self._file.dtype

    def __len__(self) -> int:
        return self._n

    def part(self, start: int, stop: int) -> FileRows:
        """Rows [start, stop) of these, in the same file."""
        start, stop, _ = slice(start, stop).indices(self._n)
        return FileRows(self._file, self._start + start, self._start + max(start, stop))

    def __getitem__(self, index: slice | Tensor, /) -> Tensor:
        """Rows of a slice, of indices (n,), or of a boolean mask (N,)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self._n)
            if step == 1:
                return self._file.read([self._start + start], max(0, stop - start))
            index = torch.arange(start, stop, step)
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        rows = index.tolist()
        if rows and not -self._n <= min(rows) <= max(rows) < self._n:
            raise IndexError(f"rows {min(rows)} to {max(rows)} of {self._n}")
        return self._file.read([self._start + row % self._n for row in rows], 1)


class _File:
    """An .npy file, open for reading as long as this object lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = check_regular(path)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, handle)
        self._handle = handle
        with open(handle, "rb", closefd=False) as stream:
            self.shape, dtype = read_header(stream, path.name, size)
            self._offset = stream.tell()
        if not dtype.isnative:
            raise ValueError(f"{path.name} has another byte order than this machine")
        self.dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        self._row = math.prod(self.shape[1:]) * dtype.itemsize

    def read(self, starts: list[int], n: int) -> Tensor:
        """`n` rows from each of `starts` on, concatenated, (len(starts) * n, ...)."""
        found = torch.empty((len(starts) * n, *self.shape[1:]), dtype=self.dtype)
        flat: Any = found.numpy().reshape(-1).view(np.uint8)
        room, size = memoryview(flat), n * self._row
        for k, row in enumerate(starts):
            self._fill(room[k * size : (k + 1) * size], self._offset + row * self._row)
        return found

    def _fill(self, room: memoryview, place: int) -> None:
        done = 0
        while done < len(room):
            try:
                got = _read_at(self._handle, room[done:], place + done)
            except OSError as error:
                number = error.errno or 0
                advice = ADVICE.get(number, ADVICE[errno.EIO])
                what = f"{self.path} cannot be read any more: {os.strerror(number)}."
                raise Unreadable(f"{what} {advice}") from error
            if not got:
                raise Unreadable(
                    f"{self.path} ends before its last row: it was cut short after it was opened. "
                    f"Restore it, or prepare it again. {KEPT}"
                )
            done += got


def _read_at(handle: int, room: memoryview, place: int) -> int:
    """Fill `room` from byte `place` of a file on; returns the number of bytes read."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [room], place)
    os.lseek(handle, place, os.SEEK_SET)
    content = os.read(handle, len(room))
    room[: len(content)] = content
    return len(content)
