"""Tensors as torch files describe them: storages, views of storages, nested torch files."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from bench.data.pickle_bytes import Later
from bench.data.pickle_values import Strangers
from bench.data.pickles import MAX_OPCODES, read_pickle
from bench.system.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_STORAGES = 10_000
MAX_NESTED_OPCODES = 1000
PIECE = 1 << 20

STORAGE_TYPES: Mapping[tuple[str, str], torch.dtype] = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}


@dataclass(eq=False)
class Storage:
    """A row of numbers in a file; `open` is None until their place is known.

    `open` gives a stream that has them from `position` on.
    """

    dtype: torch.dtype
    count: int
    open: Callable[[], BinaryIO] | None = None
    position: int = 0

    @property
    def nbytes(self) -> int:
        """Declared size in bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is described but not read yet; it uses no value twice and leaves no gaps."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """The tensor in float32, read from the file in pieces: nothing of it is kept here."""
        storage = self.storage
        if storage.open is None or storage.count == 0:
            raise UserError("A tensor in the file has no values.")
        flat = torch.empty(math.prod(self.size))
        with storage.open() as stream:
            stream.seek(storage.position + self.offset * storage.dtype.itemsize)
            for start in range(0, len(flat), PIECE):
                part = flat[start : start + PIECE]
                same = storage.dtype == torch.float32
                read = part if same else torch.empty(len(part), dtype=storage.dtype)
                _fill(stream, read.view(torch.uint8).numpy().data)
                if not same:
                    part.copy_(read)
        return flat.as_strided(self.size, self.stride).contiguous()


def _fill(stream: BinaryIO, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            raise UserError("The file ends before the last value of a tensor.")
        done += count


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *unused: Any) -> View:
    """A tensor of torch._utils._rebuild_tensor_v2; UserError unless it fits its storage.

    No value may be used twice. `unused` is about gradients.
    """
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise UserError("A tensor in the file has no storage.")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) > 8:
        raise UserError("A tensor in the file has an invalid shape.")
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
    """The tensor of torch._utils._rebuild_parameter."""
    if not isinstance(data, View):
        raise UserError("A parameter in the file is not a tensor.")
    return data


def rebuild_subclass(rebuild: Any, kind: Any, arguments: Any, *unused: Any) -> View:
    """The tensor of torch._tensor._rebuild_from_type_v2, without its class and its attributes."""
    if rebuild not in (rebuild_tensor, rebuild_parameter) or type(arguments) is not tuple:
        raise UserError("A tensor in the file is built in an unknown way.")
    found: View = rebuild(*arguments)
    return found


def new_storage(key: Any, available: int) -> tuple[str, Storage]:
    """Name and storage for torch's persistent id `key`, of at most `available` bytes."""
    fits = type(key) is tuple and len(key) in (5, 6) and key[0] == "storage"
    if not fits or not isinstance(key[1], torch.dtype) or not isinstance(key[2], str):
        raise UserError("The file refers to something that is not a storage of a tensor.")
    count = key[4]
    if type(count) is not int or count < 0 or (len(key) == 6 and key[5] is not None):
        raise UserError("The file has a storage without a usable size.")
    found = Storage(key[1], count)
    if found.nbytes > available:
        raise UserError(
            f"The file declares {found.nbytes:,} bytes of values, but has {available:,} bytes."
        )
    return key[2], found


class Nested:
    """Replaces torch.storage._load_from_bytes: every call reads a torch file of one storage."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: Any) -> Storage:
        """The storage in the bytes of an old torch file."""
        self.calls += 1
        if self.calls > MAX_STORAGES:
            raise UserError(f"The file has more than {MAX_STORAGES:,} tensors.")
        if isinstance(data, Later) and data.kind != "text":
            stream = data.open
        elif type(data) is bytes:
            stream = lambda: io.BytesIO(data)  # noqa: E731
        else:
            raise UserError("A storage in the file is not given as bytes.")
        found = read_legacy(stream, STORAGE_TYPES, max_opcodes=MAX_NESTED_OPCODES)
        if not isinstance(found, Storage):
            raise UserError("A nested torch file in the file has no storage.")
        return found


def read_legacy(
    stream: Callable[[], BinaryIO],
    table: Mapping[tuple[str, str], Any],
    *,
    max_opcodes: int = MAX_OPCODES,
    strangers: Strangers | None = None,
) -> Any:
    """The object of a torch file from before 1.6: pickles, followed by the storages' bytes.

    `stream` gives a new stream of the file, here and whenever a tensor is read.
    """
    with stream() as reader:
        return _read_legacy(stream, reader, table, max_opcodes, strangers)


def _read_legacy(
    stream: Callable[[], BinaryIO],
    reader: BinaryIO,
    table: Mapping[tuple[str, str], Any],
    max_opcodes: int,
    strangers: Strangers | None,
) -> Any:
    size = reader.seek(0, io.SEEK_END)
    reader.seek(0)
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> Storage:
        name, storage = new_storage(key, size)
        return storages.setdefault(name, storage)

    def plain() -> Any:
        return read_pickle(reader, {}, max_opcodes=max_opcodes)

    if plain() != MAGIC or plain() != PROTOCOL:
        raise UserError("The file is not a torch file from before 1.6.")
    system = plain()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("The torch file was written on a big-endian machine; convert it there.")
    found = read_pickle(
        reader, table, persistent=persistent, max_opcodes=max_opcodes, strangers=strangers
    )
    names = plain()
    if not isinstance(names, list) or any(type(name) is not str for name in names):
        raise UserError("The torch file does not list its storages.")
    if len(set(names)) != len(names) or set(names) != storages.keys():
        raise UserError("The torch file lists storages that differ from those of its tensors.")
    position = reader.tell()
    for name in names:
        storage = storages[name]
        reader.seek(position)
        declared = reader.read(8)
        if len(declared) < 8 or struct.unpack("<q", declared)[0] != storage.count:
            raise UserError("A storage in the torch file differs in size from its declaration.")
        storage.open, storage.position = stream, position + 8
        position += 8 + storage.nbytes
        if position > size:
            raise UserError("The torch file ends early.")
    return found
