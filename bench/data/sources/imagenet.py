"""Downsampled ImageNet (Chrabaszcz et al. 2017): batches of pixels as pickles or .npz."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from bench.data.batches import batch_labels, batch_pixels, planes, read_batch
from bench.data.decode import Pixels
from bench.data.labels import Labels, check_labels
from bench.data.sources.base import Batches, Listing
from bench.data.trees import FILE_MOST, File, damage_named
from bench.data.untrusted import open_array, read_member, rows
from bench.system.errors import UserError, said

_NAME = re.compile(r"(?:.*/)?(train_data_batch_(\d+)|train_data|val_data)(\.npz)?")


def _number(name: str) -> tuple[bool, int, str]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return match[1] == "val_data", int(match[2] or 0), name


class ImageNetBatches(Batches):
    """Batches by number; labels are 1..K; `val_data`, if present, is the reference."""

    kind = "imagenet-batches"
    describes = "downsampled ImageNet (folder of train_data_batch_1.. and val_data, maybe .npz)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A training batch by name."""
        return any((m := _NAME.fullmatch(f.name)) and m[1] != "val_data" for f in files)

    def listing(self) -> Listing:
        """Labels of all batches; UserError if their shapes differ."""
        names = sorted((f.name for f in self.files if _NAME.fullmatch(f.name)), key=_number)
        stems: dict[str, str] = {}
        for name in names:
            other = stems.setdefault(name.removesuffix(".npz"), name)
            if other != name:
                raise UserError(f"{self.tree.path} has both {other!r} and {name!r}; keep one.")
        numbers = [number for is_val, number, _ in map(_number, names) if not is_val]
        if 0 not in numbers and numbers != list(range(1, len(numbers) + 1)):
            missing = min(set(range(1, numbers[-1] + 1)) - set(numbers), default=0)
            raise UserError(f"{self.tree.path} is incomplete: it has no batch {missing}.")
        shapes: dict[str, tuple[int, int, int]] = {}
        labels: dict[str, Labels] = {}
        for name, file in self.tree.read(names):
            shapes[name], labels[name] = self._labels(name, file)
        if len(set(shapes.values())) > 1:
            odd = next(name for name in names if shapes[name] != shapes[names[0]])
            raise UserError(
                f"{self.tree.path}: {odd!r} has images of {shapes[odd]}, {names[0]!r} of "
                f"{shapes[names[0]]}."
            )
        train_n = sum(len(labels[name]) for name in names if not _number(name)[0])
        joined = self._joined(names, labels) - 1
        classes = tuple(str(k + 1) for k in range(int(joined[:train_n].max(initial=-1)) + 1))
        check_labels(joined, classes, train_n, self.tree.path, first=1)
        reference_from = "val" if train_n < len(joined) else ""
        return Listing(classes, joined, train_n, reference_from, shapes[names[0]])

    def _labels(self, name: str, file: IO[bytes]) -> tuple[tuple[int, int, int], Labels]:
        path = self.tree.path
        if not name.endswith(".npz"):
            batch = read_batch(path, file, name)
            pixels = batch_pixels(path, name, batch)
            shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
            return shape, batch_labels(path, name, batch.get("labels"), len(pixels))
        with damage_named(path, name), zipfile.ZipFile(file) as archive:
            try:
                stream, size, dtype = open_array(archive, "data.npy")
                stream.close()
                labels = read_member(archive, "labels.npy", FILE_MOST)
            except (ValueError, UserError) as error:
                raise UserError(f"{path}: {name!r} cannot be used: {said(error)}.") from None
        if dtype != np.uint8 or len(size) != 2:
            raise UserError(f"{path}: {name!r} has no 'data' of uint8 (n, 3 * H * W).")
        return planes(path, name, size[1]), batch_labels(path, name, labels, size[0])

    def _blocks(self, name: str, file: IO[bytes]) -> Iterator[Pixels]:
        path = self.tree.path
        if not name.endswith(".npz"):
            yield batch_pixels(path, name, read_batch(path, file, name))
            return
        with zipfile.ZipFile(file) as archive:
            stream, (n, columns), _ = open_array(archive, "data.npy")
            with stream:
                shape = planes(path, name, columns)
                for block in rows(stream, n, columns, f"{path / name}: data"):
                    yield block.reshape(len(block), *shape)
