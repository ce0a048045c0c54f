"""From a source on disk to a prepared data set, in one pass over its pixels."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from rich.console import Console

from bench.data.arrange import Arrangement, arrange
from bench.data.base import Split
from bench.data.card import (
    CARD,
    CIFAR10_CLASSES,
    CIFAR10_SHAPE,
    IMAGES,
    LABELS,
    DataCard,
    title_of,
)
from bench.data.decode import LOSSY, Decoded, Geometry, NeedsColour, bombs_refused, decode
from bench.data.prepared import marks, open_content, update_stamp
from bench.data.registry import DATASETS
from bench.data.sources import Listing, Source, find_source
from bench.data.trees import open_tree
from bench.errors import UserError
from bench.experiment import check_name
from bench.files import sha256, write_text
from bench.progress import Bar

PART, PART_BYTES = 256, 1 << 20
SHOW_EVERY = 500


_Item = tuple[int, str, bytes | npt.NDArray[np.uint8]]


@dataclass
class _Written:
    """What was found while images were written."""

    shape: tuple[int, int, int]
    lossy: bool = False
    modes: Counter[str] = field(default_factory=Counter)


def prepare(
    source: Path, name: str, geometry: Geometry, root: Path, console: Console | None = None
) -> Path:
    """Prepare `source` as the data set `name` under `root`; returns its folder.

    The folder appears once everything is in it and on disk; whatever stops the work before leaves
    nothing. Memory does not grow with the number of pixels.
    """
    check_data_name(name)
    tree = open_tree(source)
    if console is not None:
        console.print(f"Reading {source}.", markup=False, highlight=False, soft_wrap=True)
    digest, listed = source_hash(source)
    found = find_source(tree)
    listing = found.listing()
    arrangement = arrange(listing, source)
    _check_reserved(name, listing, geometry)
    with _staging(root, name) as folder:
        written = _write_images(found, listing, arrangement, geometry, folder, name, console)
        labels = np.empty(len(listing.labels), dtype=np.int64)
        labels[arrangement.rows] = listing.labels
        np.save(folder / LABELS, labels, allow_pickle=False)
        n, train_n = len(labels), arrangement.train_n
        common = "L" if written.shape[0] == 1 else "RGB"
        draft = DataCard(
            name=name,
            title=title_of(name, listing.class_names, written.shape, written.lossy),
            source=source.resolve().name,
            source_sha256=digest,
            source_listing=listed,
            kind=found.kind,
            size=geometry.size,
            crop=None if geometry.size is None else geometry.crop,
            resize=None if geometry.size is None else geometry.resize,
            lossy=written.lossy,
            converted={m: k for m, k in sorted(written.modes.items()) if m not in ("", common)},
            n=n,
            shape=written.shape,
            class_names=listing.class_names,
            train=(0, train_n),
            reference=(train_n, n),
            reference_from=arrangement.reference_from,
            left_out=listing.left_out,
            images_sha256=sha256(folder / IMAGES),
            labels_sha256=sha256(folder / LABELS),
            train_hash="",
            reference_hash="",
            pillow=PIL.__version__,
            numpy=np.__version__,
        )
        images, rows = open_content(folder, draft)
        card = draft.model_copy(
            update={
                "train_hash": Split(images[:train_n], rows[:train_n]).hash,
                "reference_hash": Split(images[train_n:], rows[train_n:]).hash,
            }
        )
        del images, rows
        update_stamp(folder, files=marks(folder))
        write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return root / name


def remove_leftovers(root: Path, name: str) -> None:
    """Remove what a preparation left that was killed; to be called while nobody else prepares."""
    for folder in root.glob(f".{name}.????????"):
        shutil.rmtree(folder, ignore_errors=True)


def check_data_name(name: str) -> str:
    """`name` if a prepared data set may have it, otherwise a UserError."""
    check_name("data set", name)
    if name in DATASETS:
        raise UserError(
            f"The name {name!r} is taken by a built-in data set or a plugin's; choose another with "
            "--dataset.",
            code=2,
        )
    return name


def _check_reserved(name: str, listing: Listing, geometry: Geometry) -> None:
    """UserError if something else is to be called CIFAR-10, whose published numbers are drawn."""
    if name != "cifar10":
        return
    numbered = tuple(str(k) for k in range(10))
    if listing.class_names not in (CIFAR10_CLASSES, numbered) or geometry.size is not None:
        raise UserError(_reserved("these are other classes, or resized"), code=2)
    if listing.shape not in (None, CIFAR10_SHAPE):
        raise UserError(_reserved(f"these are {listing.shape}"), code=2)


def _reserved(why: str) -> str:
    return (
        "The name 'cifar10' is for the original pixels of CIFAR-10, beside which published numbers "
        f"are drawn, and {why}: use another name, such as --dataset cifar10-jpeg."
    )


def source_hash(source: Path) -> tuple[str, str]:
    """SHA-256 of a file, or else of the names and sizes in a folder: (file's, folder's)."""
    if source.is_file():
        return sha256(source), ""
    digest = hashlib.sha256()
    for file in open_tree(source).files():
        digest.update(f"{file.size} {file.name}\n".encode("utf-8", "surrogateescape"))
    return "", digest.hexdigest()


def _write_images(
    source: Source,
    listing: Listing,
    arrangement: Arrangement,
    geometry: Geometry,
    folder: Path,
    name: str,
    console: Console | None,
) -> _Written:
    try:
        return _write(source, listing, arrangement, geometry, folder, name, console, channels=1)
    except NeedsColour:  # grey only if all are: one colour image makes a set of RGB images
        return _write(source, listing, arrangement, geometry, folder, name, console, channels=3)


def _write(
    source: Source,
    listing: Listing,
    arrangement: Arrangement,
    geometry: Geometry,
    folder: Path,
    name: str,
    console: Console | None,
    channels: int,
) -> _Written:
    n = len(arrangement.rows)
    seen = np.zeros(n, dtype=np.bool_)
    out: npt.NDArray[np.uint8] | None = None
    written = _Written((0, 0, 0))
    with bombs_refused(), Bar(name, n, 0, console) as bar:
        for done, (index, what, image) in enumerate(_decoded(source, geometry, channels), 1):
            if out is None:
                shape = image.pixels.shape
                written.shape = (shape[0], shape[1], shape[2])
                mapped = _create(folder / IMAGES, (n, *written.shape))
                out = mapped.view(np.ndarray)  # a row of a memmap is itself one, which is slow
            if image.pixels.shape != written.shape:
                raise UserError(
                    f"{what!r} is {_size(image.pixels.shape)} where others are "
                    f"{_size(written.shape)}: bring all to one size with --size, such as "
                    "--size 64 --crop center."
                )
            if name == "cifar10" and (image.format in LOSSY or written.shape != CIFAR10_SHAPE):
                why = f"{what!r} is {image.format or 'raw'} of {_size(written.shape)}"
                raise UserError(_reserved(why), code=2)
            out[arrangement.rows[index]] = image.pixels
            seen[index] = True
            written.lossy |= image.format in LOSSY
            written.modes[image.mode] += 1
            if done % SHOW_EVERY == 0:
                bar.update(done)
        if out is None or not seen.all():
            raise UserError(f"{source.tree.path} changed while it was read; try again.")
        mapped.flush()
        bar.update(n)
    return written


def _decoded(
    source: Source, geometry: Geometry, channels: int
) -> Iterator[tuple[int, str, Decoded]]:
    """Images in the source's order, decoded by a few threads that stay a little ahead."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4

    def work(part: list[_Item]) -> list[tuple[int, str, Decoded]]:
        return [(i, what, decode(c, what, geometry, channels)) for i, what, c in part]

    waiting: deque[Future[list[tuple[int, str, Decoded]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for part in _parts(source.images()):
            waiting.append(pool.submit(work, part))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _parts(images: Iterator[_Item]) -> Iterator[list[_Item]]:
    """Images in groups that are worth handing to a thread, and small in memory."""
    part: list[_Item] = []
    size = 0
    for item in images:
        part.append(item)
        size += len(item[2]) if isinstance(item[2], bytes) else item[2].nbytes
        if len(part) == PART or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _create(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    size = int(np.prod(shape, dtype=object))
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise UserError(
            f"{path.parent.parent} has {free / 1e9:.1f} GB left and the data set needs "
            f"{size / 1e9:.1f} GB: name a folder with room by --data-root."
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"


@contextmanager
def _staging(root: Path, name: str) -> Iterator[Path]:
    """A folder beside `root / name` that takes its name at the end, or is gone."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp keeps others out until it is whole
        temporary.rename(root / name)
        _sync(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    if path.is_dir() and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
