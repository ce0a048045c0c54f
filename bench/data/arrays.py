"""Arrays in files of others: .npy members, streamed in rows and never larger than they are."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from bench.data.untrusted import HEADERS
from bench.system.errors import UserError, said

MAX_HEADER = 10_000
ROWS = 1024


def npy_header(
    path: Path, file: IO[bytes], name: str
) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype of an .npy stream, which then stands at its first value.

    Objects, Fortran order and headers of unusual length are a UserError.
    """
    start = file.read(8)
    layout = {b"\x01\x00": "<H", b"\x02\x00": "<I"}.get(start[6:])
    if start[:6] != b"\x93NUMPY" or layout is None:
        raise UserError(f"{path}: {name!r} is not a .npy array.")
    length = file.read(struct.calcsize(layout))
    try:
        (size,) = struct.unpack(layout, length)
        if size > MAX_HEADER:
            raise UserError(f"{path}: {name!r} declares a header that no array has; not read.")
        header = io.BytesIO(length + file.read(size))
        if layout == "<H":
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(header)
    except (*HEADERS, struct.error) as error:
        raise UserError(f"{path}: {name!r} has no readable header ({said(error)}).") from None
    if dtype.hasobject or fortran:
        raise UserError(f"{path}: {name!r} holds {dtype} in an order or type that is not read.")
    return shape, dtype


def rows(
    path: Path, file: IO[bytes], name: str, n: int, row: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """`n` rows of `row` bytes, uint8 (<= 1024, row) at a time; fewer bytes are a UserError."""
    for start in range(0, n, ROWS):
        count = min(ROWS, n - start)
        content = read_exactly(path, file, name, count * row)
        yield np.frombuffer(content, dtype=np.uint8).reshape(count, row)


def read_exactly(path: Path, file: IO[bytes], name: str, size: int) -> bytes:
    """`size` bytes, or a UserError that names the file that ends before."""
    content = file.read(size)
    if len(content) != size:
        raise UserError(f"{path}: {name!r} is cut off; fetch it again.")
    return content
