"""Untrusted files of weights in every format that can be imported."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.data.pickle_bytes import Later
from bench.data.pickles import read_pickle
from bench.system.errors import UserError, shown
from bench.system.files import check_regular
from bench.training.checkpoint import shapes_of
from bench.training.importing.choose import Candidate, choose
from bench.training.importing.licence import KEYS, licence
from bench.training.importing.official import checkpoint_table, stranger
from bench.training.importing.tensors import (
    MAGIC,
    MAX_STORAGES,
    PIECE,
    Storage,
    View,
    new_storage,
    read_legacy,
)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Types of safetensors."""


@dataclass(frozen=True)
class SourceNetwork:
    """A network in a file.

    `key` is the entry that holds it ('' for the whole file), `class_name` the class of a pickled
    network ('' for a state dict), `arguments` those of its modules by name ('' for the network),
    `notes` sentences about what was left out, `beside` the names of the tensors that were. A folder
    gives `settings` of its method, a `digest` of its files, and the folder of its `decoder`.
    `licence` is '' if none is stated.
    """

    key: str
    class_name: str
    tensors: Mapping[str, Tensor]
    arguments: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    decoder: Path | None = None
    licence: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return shapes_of(self.tensors)


def read_source(path: Path, key: str | None = None) -> SourceNetwork:
    """A network in a .safetensors file, or in a pickle or torch file recognised by content.

    `key` names it if the file has several. Tensors are float32; only those of the network are read.
    Raises UserError for anything that the formats do not need, and for values that are not finite.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(32)
            size = path.stat().st_size
            if not start:
                raise UserError(f"{path} is empty.")
            file.seek(0)
            if path.suffix == ".safetensors":
                content: object = _safetensors(path, file, size)
            elif start.startswith(b"PK"):
                content = _zip(file, size)
            elif MAGIC.to_bytes(10, "little") in start:
                content = read_legacy(
                    Later(file, 0, size).open, checkpoint_table(), strangers=stranger
                )
            elif start.startswith(b"\x80"):  # protocol 2 or later
                content = read_pickle(file, checkpoint_table(), strangers=stranger)
            else:
                raise UserError(f"{path} is no checkpoint: neither a pickle nor a torch file.")
            taken, notes = choose(path, content, key)
            stated = _licence(path, content)
            del content  # what is not taken needs no memory while the tensors are read
            return replace(_read(path, taken, notes, size), licence=stated)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name the file of weights in it.") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise UserError(f"{path}: The torch file is cut short or damaged ({error}).") from None
    except UserError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise UserError(f"{where}{error}", code=error.code) from None


def _read(path: Path, taken: Candidate, notes: tuple[str, ...], size: int) -> SourceNetwork:
    made: dict[str, Tensor] = {}
    total = 0
    for name, view in taken.views.items():
        if view.storage.dtype not in _FLOATS:
            raise UserError(
                f"{path}: {shown(name)} has type {str(view.storage.dtype).removeprefix('torch.')}; "
                "weights are float16, bfloat16, float32 or float64."
            )
        # Several names for the same bytes could unfold a small file into a large run.
        total += view.nbytes
        if total > size:
            raise UserError(f"{path}: its tensors unfold into more bytes than the file has.")
        if len(made) == MAX_STORAGES:
            raise UserError(f"{path} has more than {MAX_STORAGES:,} tensors.")
        made[name] = view.tensor()
    bad = [shown(name) for name, tensor in made.items() if not _finite(tensor)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(f"{path}: {', '.join(bad[:3])}{more} have values that are not finite.")
    return SourceNetwork(taken.name, taken.class_name, made, taken.arguments, notes, taken.beside)


def _licence(path: Path, content: object) -> str:
    """The licence that a file states beside its tensors, or ''."""
    stated: Mapping[Any, Any] = content if isinstance(content, dict) else {}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            stated = opened.metadata() or {}
    names = [stated[key] for key in KEYS if isinstance(stated.get(key), str)]
    return licence(names[0], path.name) if names else ""


def _finite(tensor: Tensor) -> bool:
    flat = tensor.flatten()
    parts = (flat[start : start + PIECE] for start in range(0, len(flat), PIECE))
    # A sum in float64 copies what it adds.
    return all(bool(torch.isfinite(part.sum(dtype=torch.float64))) for part in parts)


def _safetensors(path: Path, file: BinaryIO, size: int) -> dict[str, View]:
    try:
        with safe_open(path, framework="pt") as checked:  # no gaps, and no tensor beyond the end
            position = 8 + int.from_bytes(file.read(8), "little")
            views = {}
            for name in checked.offset_keys():
                part = checked.get_slice(name)
                dtype, shape = _DTYPES.get(part.get_dtype()), tuple(part.get_shape())
                if dtype is None:
                    raise UserError(
                        f"{path}: {shown(name)} has type {part.get_dtype()}; weights are float16, "
                        "bfloat16, float32 or float64."
                    )
                count = math.prod(shape)
                stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
                storage = Storage(dtype, count, Later(file, 0, size).open, position)
                views[name] = View(storage, 0, shape, stride)
                position += storage.nbytes
            return views
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is cut short, damaged or no safetensors file ({error}).") from None


def _zip(file: BinaryIO, size: int) -> object:
    """The object of a torch file since 1.6: a zip archive of data.pkl and one file per storage."""
    try:
        archive = zipfile.ZipFile(file)
        entries = {info.filename: info for info in archive.infolist()}
        main = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(main) != 1:
            raise UserError("The zip archive is no torch file: it has no data.pkl.")
        root = main[0].removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        if order is not None and _stored(archive, order, size) != b"little":
            raise UserError("The torch file was written on a big-endian machine; convert it there.")
        storages: dict[str, Storage] = {}

        def persistent(key: Any) -> Storage:
            name, storage = new_storage(key, size)
            if name not in storages:
                info = entries.get(f"{root}data/{name}")
                if info is None or info.file_size != storage.nbytes:
                    raise UserError(f"The torch file lacks the values of storage {name[:20]!a}.")
                _check_stored(info, size)
                storage.open = partial(cast(Any, archive.open), info)
                storages[name] = storage
            return storages[name]

        content = io.BytesIO(_stored(archive, entries[main[0]], size))
        return read_pickle(content, checkpoint_table(), persistent=persistent, strangers=stranger)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise UserError(f"The torch file is cut short or damaged ({error}).") from None


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    _check_stored(info, size)
    return archive.read(info)


def _check_stored(info: zipfile.ZipInfo, size: int) -> None:
    """UserError unless an entry is stored as it is; torch never compresses one."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"The entry {info.filename[:80]!a} of the torch file is compressed.")
    if info.file_size > size:
        raise UserError("The torch file ends early.")
