"""Tensors as other programs' files describe them: storages, views of them, nested torch files."""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.data.pickles import MAX_OPCODES, read_pickle
from bench.system.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_STORAGES = 10_000
MAX_NESTED_OPCODES = 1000

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, eq=False)
class StorageType:
    """Stands for torch.FloatStorage and its like; nothing to call."""

    dtype: torch.dtype


STORAGE_TYPES: Mapping[tuple[str, str], StorageType] = {
    ("torch", name): StorageType(dtype) for name, dtype in _DTYPES.items()
}


@dataclass(eq=False)
class Storage:
    """Numbers in a row; `data` is a view of the file's own bytes, filled in when it is reached."""

    dtype: torch.dtype
    count: int
    data: memoryview | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes, as declared."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is described and not made yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its values in bytes."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """The tensor, a view of the file's bytes (read-only: copy it before writing)."""
        storage = self.storage
        if storage.data is None or storage.count == 0:
            raise UserError("A tensor in the file has no values.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the bytes are read-only
            flat = torch.frombuffer(storage.data, dtype=storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset)


def rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *unused: Any
) -> View:  # what torch._utils._rebuild_tensor_v2 gets; the rest is about gradients
    """Check a tensor against its storage: within it, and no value used twice."""
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise UserError("A tensor in the file does not lie in a storage.")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) > 8:
        raise UserError("A tensor in the file has a shape that is none.")
    if len(size) != len(stride) or 0 in size:
        raise UserError(f"A tensor in the file has the shape {size} with strides {stride}.")
    expected = 1
    for step, length in sorted(zip(stride, size, strict=True)):
        if length == 1:
            continue
        if step != expected:
            raise UserError(f"A tensor in the file has strides {stride}, which leave gaps.")
        expected *= length
    if offset + expected > storage.count:
        raise UserError(
            f"A tensor of shape {size} in the file does not fit into its {storage.count:,} values."
        )
    return View(storage, offset, size, stride)


def rebuild_parameter(data: Any, *unused: Any) -> View:
    """What torch._utils._rebuild_parameter gets: the tensor and whether it has gradients."""
    if not isinstance(data, View):
        raise UserError("A parameter in the file is no tensor.")
    return View(data.storage, data.offset, data.size, data.stride)


def new_storage(key: Any, available: int) -> tuple[str, Storage]:
    """Name and storage of a persistent id of torch, of at most `available` bytes."""
    fits = type(key) is tuple and len(key) in (5, 6) and key[0] == "storage"
    if not fits or not isinstance(key[1], StorageType) or not isinstance(key[2], str):
        raise UserError("The file refers to something that is no storage of a tensor.")
    count = key[4]
    if type(count) is not int or count < 0 or (len(key) == 6 and key[5] is not None):
        raise UserError("The file has a storage without a usable size.")
    found = Storage(key[1].dtype, count)
    if found.nbytes > available:
        raise UserError(
            f"The file declares {found.nbytes:,} bytes of values where {available:,} are present."
        )
    return key[2], found


class Nested:
    """Answers torch.storage._load_from_bytes: each call is a torch file of one storage."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: Any) -> Storage:
        """The storage in the bytes of a torch file of the older kind."""
        self.calls += 1
        if self.calls > MAX_STORAGES:
            raise UserError(f"The file has more than {MAX_STORAGES:,} tensors.")
        if type(data) is not bytes:
            raise UserError("A storage in the file does not come as bytes.")
        found = read_legacy(data, STORAGE_TYPES, max_opcodes=MAX_NESTED_OPCODES)
        if not isinstance(found, Storage):
            raise UserError("A nested torch file in the file holds no storage.")
        return found


def read_legacy(
    data: bytes | memoryview,
    table: Mapping[tuple[str, str], Any],
    *,
    stream: io.BufferedIOBase | None = None,
    max_opcodes: int = MAX_OPCODES,
) -> Any:
    """The object of a torch file of the kind before 1.6: pickles, and then the storages' bytes.

    `stream` reads the same bytes, where they should not be copied for it.
    """
    reader: Any = io.BytesIO(data) if stream is None else stream
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> Storage:
        name, storage = new_storage(key, len(data))
        return storages.setdefault(name, storage)

    def plain() -> Any:
        return read_pickle(reader, {}, max_opcodes=max_opcodes)

    if plain() != MAGIC or plain() != PROTOCOL:
        raise UserError("The file is no torch file of the older kind.")
    system = plain()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("The torch file was written on a big-endian machine; convert it there.")
    found = read_pickle(reader, table, persistent=persistent, max_opcodes=max_opcodes)
    names = plain()
    if not isinstance(names, list) or any(type(name) is not str for name in names):
        raise UserError("The torch file does not list its storages.")
    if len(set(names)) != len(names) or set(names) != storages.keys():
        raise UserError("The torch file lists other storages than its tensors use.")
    position, view = reader.tell(), memoryview(data)
    for name in names:
        storage = storages[name]
        declared = view[position : position + 8]
        if len(declared) < 8 or struct.unpack("<q", declared)[0] != storage.count:
            raise UserError("A storage in the torch file has another size than is declared.")
        position += 8
        storage.data = view[position : position + storage.nbytes]
        if len(storage.data) < storage.nbytes:
            raise UserError("The torch file ends early.")
        position += storage.nbytes
    return found
