"""Untrusted files: exceptions of damaged ones; arrays, checked before anything is allocated."""

from __future__ import annotations

import io
import lzma
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.system.errors import UserError, said
from bench.system.files import read_whole

HEADER_MOST = 10_000
BOMB, RATIO = 64 << 20, 200
"""A file of at least BOMB bytes, packed by more than RATIO, counts as a decompression bomb."""
ROWS = 1024

HEADERS = (
    ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError, TokenError,
)  # fmt: skip
"""Exceptions of numpy on damaged headers, which it parses as Python literals."""
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, NotImplementedError, LookupError,
    TypeError, AttributeError, ArithmeticError, MemoryError, struct.error,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""Exceptions of decoders on damaged bytes and false headers."""


def unfolds(size: int, packed: int) -> bool:
    """Whether `packed` bytes that unpack to `size` count as a decompression bomb."""
    return size >= BOMB and size > RATIO * packed


def open_array(
    file: zipfile.ZipFile, name: str
) -> tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]:
    """An entry, positioned at its data, with shape and type, both checked against its size."""
    stream, header = _open(file, name)
    try:
        shape, dtype = _in_c_order(header, name)
    except ValueError:
        stream.close()
        raise
    return stream, shape, dtype


def _open(file: zipfile.ZipFile, name: str) -> tuple[IO[bytes], Header]:
    entry = file.NameToInfo.get(name)
    if entry is None:
        raise ValueError(f"it has no {name.removesuffix('.npy')}")
    if unfolds(entry.file_size, entry.compress_size):
        raise ValueError(
            f"{name} has {entry.compress_size:,} bytes and unfolds into {entry.file_size:,}; it "
            "cannot be trusted"
        )
    stream = file.open(entry)
    try:
        return stream, _header(stream, name, entry.file_size)
    except BaseException:
        stream.close()
        raise


def read_member(file: zipfile.ZipFile, name: str, most: int) -> npt.NDArray[Any]:
    """An entry's array of at most `most` bytes; ValueError or UserError, with the reason."""
    stream, header = _open(file, name)
    with stream:
        if math.prod(header.shape) * header.dtype.itemsize > most:
            raise ValueError(
                f"{name} is {header.dtype} {header.shape}, which has more than {most:,} bytes"
            )
        return _whole(stream, header, f"{file.filename}: {name}")


def read_array(path: Path, most: int) -> npt.NDArray[Any]:
    """The array of an .npy file of at most `most` bytes; OSError or ValueError with the reason."""
    return array_of(read_whole(path, most), path.name)


def array_of(content: bytes, name: str) -> npt.NDArray[Any]:
    """The array in the bytes of an .npy file; ValueError or UserError, with the reason."""
    stream = io.BytesIO(content)
    return _whole(stream, _header(stream, name, len(content)), name)


def _whole(stream: IO[bytes], header: Header, where: Path | str) -> npt.NDArray[Any]:
    shape = header.shape[::-1] if header.fortran else header.shape
    found = take(stream, shape, header.dtype, where)
    return np.ascontiguousarray(found.T) if header.fortran else found


class Header(NamedTuple):
    """Shape and type of an array, and whether its first axis runs fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def read_header(stream: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that has `size` bytes, header included; reads the header.

    Raises ValueError, with the reason, if shape and type do not fit `size` or are not supported.
    """
    return _in_c_order(_header(stream, name, size), name)


def _in_c_order(header: Header, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that is read row by row."""
    if header.fortran:
        raise ValueError(f"{name} is in Fortran order: save it again in C order")
    return header.shape, header.dtype


def _header(stream: IO[bytes], name: str, size: int) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of version {version} of the npy format")
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    try:
        shape, fortran, dtype = read(stream, max_header_size=HEADER_MOST)
    except HEADERS:
        raise ValueError(f"the header of {name} is damaged or too long") from None
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, which could run code")
    if any(length < 1 for length in shape):
        raise ValueError(f"{name} is empty: {shape}")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"{name} declares {dtype} {shape}, which is not the size of its data")
    return Header(shape, dtype, bool(fortran) and len(shape) > 1)


def take(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], where: Path | str
) -> npt.NDArray[Any]:
    """The next values of an array; UserError if the file is damaged or ends too early."""
    size = math.prod(shape) * dtype.itemsize
    try:
        content = stream.read(size)
    except DAMAGE as error:
        raise UserError(f"Cannot read {where}: {said(error)}.") from None
    if len(content) != size:
        raise UserError(f"Cannot read {where}: it is cut off before its last value.")
    # bytearray: torch needs writable memory.
    return np.frombuffer(bytearray(content), dtype).reshape(shape)


def rows(stream: IO[bytes], n: int, row: int, where: Path | str) -> Iterator[npt.NDArray[np.uint8]]:
    """The next `n` rows of `row` bytes, uint8 (<= 1024, row) at a time."""
    for start in range(0, n, ROWS):
        yield take(stream, (min(ROWS, n - start), row), np.dtype(np.uint8), where)
