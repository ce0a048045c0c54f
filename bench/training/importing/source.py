"""Untrusted files of weights in every format that can be imported."""

from __future__ import annotations

import io
import mmap
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.data.pickles import read_pickle
from bench.system.errors import UserError, shown
from bench.system.files import check_regular
from bench.training.checkpoint import shapes_of
from bench.training.importing.official import (
    Module,
    collect,
    official_table,
    state_dict_table,
)
from bench.training.importing.tensors import (
    MAGIC,
    MAX_STORAGES,
    Storage,
    View,
    new_storage,
    read_legacy,
)

KEYS = ("ema", "net", "model", "state_dict")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class SourceNetwork:
    """A network in a file.

    `key` is the entry that holds it ('' for the whole file), `class_name` the class of a pickled
    network ('' for a state dict), `arguments` those of its modules by name ('' for the network).
    """

    key: str
    class_name: str
    tensors: Mapping[str, Tensor]
    arguments: Mapping[str, Mapping[str, Any]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return shapes_of(self.tensors)


def read_source(path: Path) -> SourceNetwork:
    """The network in a .safetensors file, or in a pickle or torch file recognised by content.

    Tensors are float32, views of the file if it has that type. Raises UserError for anything that
    the formats do not need, and for values that are not finite.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(16)
            size = path.stat().st_size
            if not start:
                raise UserError(f"{path} is empty.")
            if path.suffix == ".safetensors":
                return _checked(path, "", "", _safetensors(path), {}, size)
            file.seek(0)
            if start.startswith(b"PK"):
                content = _zip(file, size)
            elif start.startswith(pickle.dumps(MAGIC, 2)[:-1]):
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                content = read_legacy(view, state_dict_table(), stream=cast(Any, file))
            elif start.startswith(b"\x80"):  # protocol 2 or later
                content = read_pickle(file, official_table())
            else:
                raise UserError(f"{path} is no checkpoint: neither a pickle nor a torch file.")
            return _network(path, content, size)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name the file of weights in it.") from None
    except UserError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise UserError(f"{where}{error}") from None


def _network(path: Path, content: object, size: int) -> SourceNetwork:
    key = ""
    if isinstance(content, dict):
        # A state dict is a network; anything else has one under a key.
        key = next((k for k in KEYS if isinstance(content.get(k), Module | dict)), "")
        content = content[key] if key else content
    if isinstance(content, Module):
        views, arguments = collect(content)
        return _checked(path, key, content.class_name, _made(views), arguments, size)
    where = f"its entry {key!r}" if key else "it"
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} has no network: {where} is neither one nor a state dict.")
    wrong = [k for k, v in content.items() if type(k) is not str or not isinstance(v, View)]
    if wrong:
        raise UserError(
            f"{path} has no network: {where} has none under {', '.join(KEYS)}, and "
            f"{str(wrong[0])[:80]!a} in it is no tensor ({len(wrong)} entries are none)."
        )
    return _checked(path, key, "", _made(content), {}, size)


def _made(views: Mapping[str, View]) -> Iterator[tuple[str, Tensor]]:
    return ((name, view.tensor()) for name, view in views.items())


def _checked(
    path: Path,
    key: str,
    class_name: str,
    tensors: Iterator[tuple[str, Tensor]],
    arguments: Mapping[str, Mapping[str, Any]],
    size: int,
) -> SourceNetwork:
    made: dict[str, Tensor] = {}
    total = 0
    for name, tensor in tensors:
        if tensor.dtype not in _FLOATS:
            raise UserError(
                f"{path}: {shown(name)} has type {str(tensor.dtype).removeprefix('torch.')}; "
                "weights are float16, bfloat16, float32 or float64."
            )
        # Several names for the same bytes could unfold a small file into a large run.
        total += tensor.numel() * tensor.itemsize
        if total > size:
            raise UserError(f"{path}: its tensors unfold into more bytes than the file has.")
        if len(made) == MAX_STORAGES:
            raise UserError(f"{path} has more than {MAX_STORAGES:,} tensors.")
        made[name] = tensor.to(torch.float32).contiguous()
    bad = [shown(name) for name, tensor in made.items() if not _finite(tensor)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(f"{path}: {', '.join(bad[:3])}{more} have values that are not finite.")
    if made and all(name.startswith("module.") for name in made):  # by DistributedDataParallel
        made = {name.removeprefix("module."): tensor for name, tensor in made.items()}
    return SourceNetwork(key, class_name, made, arguments)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                yield name, file.get_tensor(name)
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
                storage.data = memoryview(_stored(archive, info, size))
                storages[name] = storage
            return storages[name]

        content = io.BytesIO(_stored(archive, entries[main[0]], size))
        return read_pickle(content, state_dict_table(), persistent=persistent)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise UserError(f"The torch file is cut short or damaged ({error}).") from None


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    """The bytes of an entry; torch never compresses one."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"The entry {info.filename[:80]!a} of the torch file is compressed.")
    if info.file_size > size:
        raise UserError("The torch file ends early.")
    return archive.read(info)
