"""The pixels of a source, decoded and written to one file."""

from __future__ import annotations

import errno
import io
import math
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.data.arrange import Arrangement
from bench.data.card import IMAGES
from bench.data.decode import LOSSY, Decoded, Geometry, Pixels, channels_of, decode
from bench.data.published import check_original
from bench.data.sources import Source
from bench.system.errors import UserError
from bench.system.progress import Reporter

PART, PART_BYTES = 256, 1 << 20
SHOW_EVERY = 500


_Item = tuple[int, str, bytes | Pixels]


@dataclass
class Written:
    """Facts found while images were written."""

    shape: tuple[int, int, int]
    lossy: bool = False
    modes: Counter[str] = field(default_factory=Counter)
    oddities: Counter[str] = field(default_factory=Counter)


def write_images(
    source: Source,
    arrangement: Arrangement,
    geometry: Geometry,
    folder: Path,
    name: str,
    reporter: Reporter,
    channels: int | None = None,
) -> Written:
    """Write images.npy in `folder`, each image to its row of `arrangement`.

    Images get 3 or 1 `channels`; None: grey if all are, and otherwise RGB. Writes are not
    memory-mapped: on a full disk a map ends the process by a signal, and its pages count as the
    process's memory.
    """
    if channels is None:
        channels = channels_of((image, repr(what)) for _, what, image in source.images())
    n = len(arrangement.rows)
    seen = np.zeros(n, dtype=np.bool_)
    written = Written((0, 0, 0))
    with (folder / IMAGES).open("wb", buffering=0) as file, reporter.bar(name, n) as bar:
        start = size = 0
        for done, (index, what, image) in enumerate(_decoded(source, geometry, channels), 1):
            check_original(name, what, image)
            if done == 1:
                written.shape, size = image.pixels.shape, image.pixels.nbytes
                start = _write_header(file, folder, n, written.shape)
            if image.pixels.shape != written.shape:
                raise UserError(
                    f"{what!r} is {_size(image.pixels.shape)} where others are "
                    f"{_size(written.shape)}: bring all to one size with --size, such as "
                    "--size 64 --crop center."
                )
            file.seek(start + int(arrangement.rows[index]) * size)
            if file.write(image.pixels.tobytes()) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
            seen[index] = True
            written.lossy |= image.format in LOSSY
            written.modes[image.mode] += 1
            written.oddities.update(image.oddities)
            if done % SHOW_EVERY == 0:
                bar.update(done)
        if not seen.all():
            raise UserError(f"{source.tree.path} changed while it was read; try again.")
        bar.update(n)
    return written


def _decoded(
    source: Source, geometry: Geometry, channels: int
) -> Iterator[tuple[int, str, Decoded]]:
    """Images in the source's order, decoded ahead by a few threads."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4

    def work(part: list[_Item]) -> list[tuple[int, str, Decoded]]:
        return [
            (i, what, decode(c, repr(what), geometry, channels, to_grey=True))
            for i, what, c in part
        ]

    waiting: deque[Future[list[tuple[int, str, Decoded]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for part in _parts(source.images()):
            waiting.append(pool.submit(work, part))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _parts(images: Iterator[_Item]) -> Iterator[list[_Item]]:
    """Images in groups that are large enough for a thread, and small in memory."""
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


def _write_header(file: io.FileIO, folder: Path, n: int, shape: tuple[int, ...]) -> int:
    """Begin an .npy file of uint8 (n, *shape) if the disk has room; returns the header's length."""
    free, size = shutil.disk_usage(folder).free, n * math.prod(shape)
    if size > free:
        raise UserError(
            f"{folder.parent} has {free / 1e9:.1f} GB left and the data set needs "
            f"{size / 1e9:.1f} GB: name a folder with room by --data-root."
        )
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"
