"""IDX files, as of MNIST and Fashion-MNIST, plain or compressed by gzip."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from bench.data.decode import Pixels
from bench.data.labels import Labels, check_labels
from bench.data.sources.base import Batches, Listing
from bench.data.trees import FILES_MOST, File, damage_named, reader
from bench.data.untrusted import rows, take
from bench.system.errors import UserError

_NAME = re.compile(
    r"(?:.*/)?((?:emnist-\w+-)?)(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?"
)
IMAGES, LABELS = 0x00000803, 0x00000801
CHUNK = 1 << 20


class Idx(Batches):
    """`train-images-idx3-ubyte[.gz]`, `train-labels-idx1-ubyte[.gz]` and the same as `t10k-`.

    A file may be there in both forms, with the same content. EMNIST's labels may start at 1.
    """

    kind = "idx"
    describes = "MNIST-like IDX files (folder of train-images-idx3-ubyte[.gz], ...)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A file of training images by name."""
        return any((m := _NAME.fullmatch(f.name)) and m[2] == "train" for f in files)

    def listing(self) -> Listing:
        """Training images, then those of t10k."""
        paths: dict[tuple[str, str], str] = {}
        sets: set[str] = set()
        for file in self.files:
            if match := _NAME.fullmatch(file.name):
                key = ("train" if match[2] == "train" else "test", match[3])
                sets.add(match[1])
                if len(sets) > 1:
                    several = " and ".join(f"{name}train-..." for name in sorted(sets))
                    raise UserError(f"{self.tree.path} has {several}; keep one set.")
                if key in paths and self._same(paths[key], file.name):
                    continue
                if key in paths:
                    raise UserError(
                        f"{self.tree.path} has both {paths[key]!r} and {file.name!r}; keep one."
                    )
                paths[key] = file.name
        labels: dict[str, Labels] = {}
        shapes = []
        for split in sorted({split for split, _ in paths}, reverse=True):  # train, test
            for what in ("labels", "images"):
                if (split, what) not in paths:
                    raise UserError(f"{self.tree.path} has no {what} for its {split} split.")
            images = paths[split, "images"]
            labels[images] = self._labels(paths[split, "labels"])
            shapes.append(self._shape(images, len(labels[images])))
        if shapes[0] != shapes[-1]:
            raise UserError(
                f"{self.tree.path} has training images of {shapes[0]} and test images of "
                f"{shapes[1]}."
            )
        joined = self._joined(list(labels), labels)
        train_n = len(next(iter(labels.values())))
        first = int(bool(sets - {""}) and joined.min(initial=1) == 1)
        joined -= first
        classes = tuple(str(k + first) for k in range(int(joined.max(initial=0)) + 1))
        check_labels(joined, classes, train_n, self.tree.path, first)
        return Listing(classes, joined, train_n, "t10k" if len(labels) > 1 else "", shapes[0])

    def _same(self, first: str, second: str) -> bool:
        """Whether two files have the same content once decompressed."""
        with (
            self.tree.open(first) as one,
            self.tree.open(second) as other,
            damage_named(self.tree.path, f"{first} or {second}"),
        ):
            streams = reader(one, first), reader(other, second)
            while content := streams[0].read(CHUNK):
                if streams[1].read(CHUNK) != content:
                    return False
            return not streams[1].read(1)

    def _labels(self, name: str) -> Labels:
        with self.tree.open(name) as file, damage_named(self.tree.path, name):
            stream = reader(file, name)
            (n,) = self._head(stream, name, LABELS, 1)
            if n > FILES_MOST:
                raise UserError(f"{self.tree.path}: {name!r} declares {n:,} labels; not read.")
            found = take(stream, (n,), np.dtype(np.uint8), self.tree.path / name)
            self._check_end(name, stream.read(1))
        return found.astype(np.int64)

    def _shape(self, name: str, n: int) -> tuple[int, int, int]:
        """(1, H, W), after the declared number of bytes was found in the file."""
        with self.tree.open(name) as file, damage_named(self.tree.path, name):
            stream = reader(file, name)
            count, height, width = self._head(stream, name, IMAGES, 3)
            if count != n:
                raise UserError(f"{self.tree.path}: {name!r} has {count} images, and {n} labels.")
            left = declared = count * height * width
            while left > 0 and (got := len(stream.read(min(left, CHUNK)))):
                left -= got
            if left:
                raise UserError(
                    f"{self.tree.path}: {name!r} declares {declared:,} bytes of images and holds "
                    f"{declared - left:,}; fetch it again."
                )
            self._check_end(name, stream.read(1))
        return 1, height, width

    def _head(self, stream: IO[bytes], name: str, expected: int, axes: int) -> tuple[int, ...]:
        """The lengths of the array's axes."""
        head = take(stream, (4 + 4 * axes,), np.dtype(np.uint8), self.tree.path / name)
        magic, *shape = struct.unpack(f">{1 + axes}I", head.tobytes())
        if magic != expected:
            raise UserError(
                f"{self.tree.path}: {name!r} begins with {magic:#010x}, not {expected:#010x} like "
                "an IDX file of bytes."
            )
        return tuple(shape)

    def _check_end(self, name: str, more: bytes) -> None:
        if more:
            raise UserError(f"{self.tree.path}: {name!r} holds more than it declares.")

    def _blocks(self, name: str, file: IO[bytes]) -> Iterator[Pixels]:
        stream = reader(file, name)
        n, height, width = self._head(stream, name, IMAGES, 3)
        for block in rows(stream, n, height * width, self.tree.path / name):
            yield block.reshape(len(block), 1, height, width)
