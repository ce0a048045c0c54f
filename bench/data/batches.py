"""Untrusted pickled batches of images, as published for CIFAR and downsampled ImageNet.

numpy pickles an array as a call of `_reconstruct` and a state (version, shape, dtype, order,
bytes). The classes here take the state and build the array from its bytes.
"""

from __future__ import annotations

import codecs
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from bench.data.decode import Pixels
from bench.data.labels import CLASSES_MOST, Labels, whole_numbers
from bench.data.pickles import read_pickle
from bench.data.trees import damage_named
from bench.system.errors import UserError

MAX_BATCH = 1 << 32
"""Bytes; the batches of ImageNet at 64x64 have 1.6e9."""
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_ORDERS = ("|", "<", ">", "=")


class _DType:
    """numpy's dtype in a pickle: plain numbers only."""

    def __init__(self, code: object, *flags: object) -> None:
        name = code.decode("ascii") if isinstance(code, bytes) else code
        if name not in _DTYPES:
            raise ValueError(f"no dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in _ORDERS:
            raise ValueError(f"no byte order {order!r}")
        self.dtype = np.dtype(f"{order}{self.dtype.str[1:]}")


class _Array:
    """numpy's ndarray in a pickle; `value` is set with its state."""

    value: npt.NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        if math.prod(shape) * dtype.dtype.itemsize != len(content):
            raise ValueError("shape and bytes disagree")
        flat = np.frombuffer(content, dtype=dtype.dtype)
        self.value = flat.reshape(tuple(shape), order="F" if fortran else "C")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _from_buffer(content: object, dtype: _DType, shape: Any, order: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _encode(text: str, encoding: object) -> bytes:
    if encoding not in ("latin1", b"latin1", "latin-1"):
        raise ValueError("not latin1")
    return codecs.latin_1_encode(text)[0]


_TABLE: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


def read_batch(path: Path, file: IO[bytes], name: str) -> dict[str, Any]:
    """The dictionary in the file `name` of `path`, with text as keys and numpy arrays."""
    with damage_named(path, name):
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > MAX_BATCH:
            raise UserError(
                f"{path}: {name!r} has {size:,} bytes; a batch has at most {MAX_BATCH:,}."
            )
        try:
            found = read_pickle(cast("BinaryIO", file), _TABLE, encoding="bytes")
        except UserError as error:
            raise UserError(f"{path}: {name!r} cannot be read. {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: {name!r} is not a batch, a dictionary with 'data'.")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): (
            value.value if isinstance(value, _Array) and hasattr(value, "value") else value
        )
        for key, value in found.items()
    }


def batch_pixels(
    path: Path, name: str, batch: Mapping[str, Any], side: int | None = None
) -> Pixels:
    """`data` as a view, uint8 (n, 3, H, H); a row holds the planes of red, green and blue."""
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise UserError(f"{path}: {name!r} has no 'data' of uint8 (n, 3 * H * W).")
    return data.reshape(len(data), *planes(path, name, data.shape[1], side))


def planes(path: Path, name: str, columns: int, side: int | None = None) -> tuple[int, int, int]:
    """(3, H, H) for a row of this many columns; H must be `side` if that is given."""
    found = math.isqrt(columns // 3)
    if found == 0 or 3 * found * found != columns or side not in (None, found):
        expected = "3 * H * H" if side is None else str(3 * side * side)
        raise UserError(f"{path}: {name!r} has rows of {columns} values, not {expected}.")
    return 3, found, found


def batch_labels(path: Path, name: str, labels: object, n: int) -> Labels:
    """Labels, from a list or array of whole numbers, as int64 (n,)."""
    if isinstance(labels, list) and all(
        type(label) is int and abs(label) < 1 << 31 for label in labels
    ):
        labels = np.array(labels, dtype=np.int64)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(f"{path}: {name!r} has no 'labels', a list of whole numbers.")
    if len(labels) != n:
        raise UserError(f"{path}: {name!r} has {n} images and {len(labels)} labels.")
    try:
        return whole_numbers(labels, n, least=-CLASSES_MOST)
    except ValueError as error:
        raise UserError(f"{path}: {name!r} has labels {error}.") from None
