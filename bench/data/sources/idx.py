"""IDX files, the form of MNIST and Fashion-MNIST, plain or compressed by gzip."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from bench.data.arrays import read_exactly, rows
from bench.data.sources.base import Labels, Listing, Pixels, Source, check_labels
from bench.data.trees import MAX_FILES, File, damage_named, reader
from bench.system.errors import UserError

_NAME = re.compile(r"(?:.*/)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
IMAGES, LABELS = 0x00000803, 0x00000801
CHUNK = 1 << 20


class Idx(Source):
    """`train-images-idx3-ubyte[.gz]`, `train-labels-idx1-ubyte[.gz]` and the same as `t10k-`."""

    kind = "idx"
    describes = "MNIST-like IDX files (folder of train-images-idx3-ubyte[.gz], ...)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """Training images by name."""
        return any((m := _NAME.fullmatch(f.name)) and m[1] == "train" for f in files)

    def listing(self) -> Listing:
        """Training images, then those of t10k."""
        self._paths: dict[tuple[str, str], str] = {}
        for file in self.files:
            if match := _NAME.fullmatch(file.name):
                key = ("train" if match[1] == "train" else "test", match[2])
                if key in self._paths:
                    raise UserError(
                        f"{self.tree.path} has both {self._paths[key]!r} and {file.name!r}; "
                        "keep one."
                    )
                self._paths[key] = file.name
        parts, shape = [], None
        for split in ("train", "test"):
            if (split, "images") not in self._paths and (split, "labels") not in self._paths:
                continue
            labels = self._labels(split)
            found = self._shape(split, len(labels))
            if shape not in (None, found):
                raise UserError(
                    f"{self.tree.path} has training images of {shape} and test images of {found}."
                )
            shape = found
            parts.append(labels)
        labels = np.concatenate(parts)
        classes = tuple(str(k) for k in range(int(labels.max(initial=0)) + 1))
        check_labels(labels, classes, len(parts[0]), self.tree.path)
        reference_from = "t10k" if len(parts) > 1 else ""
        self._starts = {"train": 0, "test": len(parts[0])}
        return Listing(classes, labels, len(parts[0]), reference_from, shape)

    def _path(self, split: str, what: str) -> str:
        if (split, what) not in self._paths:
            raise UserError(f"{self.tree.path} has no {what} for its {split} split.")
        return self._paths[split, what]

    def _labels(self, split: str) -> Labels:
        name = self._path(split, "labels")
        with self.tree.open(name) as file, damage_named(self.tree.path, name):
            stream = reader(file, name)
            magic, n = struct.unpack(">II", read_exactly(self.tree.path, stream, name, 8))
            self._check_magic(name, magic, LABELS)
            if n > MAX_FILES:
                raise UserError(f"{self.tree.path}: {name!r} declares {n:,} labels; not read.")
            content = read_exactly(self.tree.path, stream, name, n)
            self._check_end(name, stream.read(1))
        return np.frombuffer(content, dtype=np.uint8).astype(np.int64)

    def _shape(self, split: str, n: int) -> tuple[int, int, int]:
        """(1, H, W), after the file was found to hold as much as it declares."""
        name = self._path(split, "images")
        with self.tree.open(name) as file, damage_named(self.tree.path, name):
            stream = reader(file, name)
            head = read_exactly(self.tree.path, stream, name, 16)
            magic, count, height, width = struct.unpack(">IIII", head)
            self._check_magic(name, magic, IMAGES)
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

    def _check_magic(self, name: str, magic: int, expected: int) -> None:
        if magic != expected:
            raise UserError(
                f"{self.tree.path}: {name!r} begins with {magic:#010x}, not {expected:#010x} as an "
                "IDX file of bytes does."
            )

    def _check_end(self, name: str, more: bytes) -> None:
        if more:
            raise UserError(f"{self.tree.path}: {name!r} holds more than it declares.")

    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """Training images, then those of t10k; within an archive in its order."""
        splits = {path: split for (split, what), path in self._paths.items() if what == "images"}
        for name, file in self.tree.read(splits):
            index = self._starts[splits[name]]
            with damage_named(self.tree.path, name):
                stream = reader(file, name)
                head = read_exactly(self.tree.path, stream, name, 16)
                _, n, height, width = struct.unpack(">IIII", head)
                for block in rows(self.tree.path, stream, name, n, height * width):
                    for row in block:
                        yield index, f"{name}[{index}]", row.reshape(1, height, width)
                        index += 1
