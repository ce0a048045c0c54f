"""The pixels of a source, decoded and written to one file."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.arrange import Arrangement
from bench.data.card import IMAGES
from bench.data.decode import LOSSY, Decoded, Geometry, Pixels, channels_of, decode
from bench.data.published import check_original
from bench.data.sources import Source
from bench.system.errors import UserError
from bench.system.progress import Reporter

PART, PART_BYTES = 256, 1 << 20
SHOW_EVERY = 500
AT_MOST = 64
"""The largest size that a message proposes, which trains in hours."""


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
) -> Written:
    """Write images.npy in `folder`, each image to its row of `arrangement`.

    Unless `geometry` has channels, images are grey if all are, and otherwise RGB. Writes are not
    memory-mapped: on a full disk a map ends the process by a signal, and its pages count as the
    process's memory.
    """
    channels = geometry.channels or channels_of(
        (image, repr(what)) for _, what, image in source.images()
    )
    written = Written((0, 0, 0))

    def pixels() -> Iterator[tuple[int, str, Pixels]]:
        for index, what, image in _decoded(source, geometry, channels):
            check_original(name, what, image)
            yield index, what, image.pixels
            written.lossy |= image.format in LOSSY
            written.modes[image.mode] += 1
            written.oddities.update(image.oddities)

    written.shape = write_rows(pixels(), source, arrangement, folder, name, reporter)
    return written


def write_rows(
    samples: Iterator[tuple[int, str, npt.NDArray[Any]]],
    source: Source,
    arrangement: Arrangement,
    folder: Path,
    name: str,
    reporter: Reporter,
) -> tuple[int, int, int]:
    """Write images.npy in `folder` from the samples of a source; returns the shape of one.

    Each has its index in the source, which decides its row, and its name in messages.
    """
    n = len(arrangement.rows)
    seen = np.zeros(n, dtype=np.bool_)
    shape: tuple[int, ...] = ()
    with (folder / IMAGES).open("wb", buffering=0) as file, reporter.bar(name, n) as bar:
        start = size = 0
        for done, (index, what, sample) in enumerate(samples, 1):
            if done == 1:
                shape, size = sample.shape, sample.nbytes
                start = _write_header(file, folder, n, sample)
            if sample.shape != shape:
                side = min(*sample.shape[1:], *shape[1:], AT_MOST)
                raise UserError(
                    f"{what!r} is {_size(sample.shape)} where others are {_size(shape)}: bring all "
                    "to one size with bench data prepare, such as --size "
                    f"{1 << side.bit_length() - 1} --crop center."
                )
            file.seek(start + int(arrangement.rows[index]) * size)
            if file.write(sample.tobytes()) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
            seen[index] = True
            if done % SHOW_EVERY == 0:
                bar.update(done)
        if not seen.all():
            raise UserError(f"{source.tree.path} changed while it was read; try again.")
        bar.update(n)
    channels, height, width = shape
    return channels, height, width


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


def _write_header(file: io.FileIO, folder: Path, n: int, sample: npt.NDArray[Any]) -> int:
    """Begin an .npy file of n such samples if the disk has room; returns the header's length."""
    free, size = shutil.disk_usage(folder).free, n * sample.nbytes
    if size > free:
        raise UserError(
            f"{folder.parent} has {free / 1e9:.1f} GB left and the data set needs "
            f"{size / 1e9:.1f} GB: name a folder with room by --data-root."
        )
    header = {"descr": sample.dtype.str, "fortran_order": False, "shape": (n, *sample.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"
