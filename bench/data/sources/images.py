"""Image files in folders, `split/class/file` or `class/file`, also within an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from bench.data.decode import read_encoded
from bench.data.sources.base import Listing, Pixels, Source, check_labels
from bench.data.trees import File, strip_root
from bench.system.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
TRAIN = ("train", "training")
REFERENCE = ("test", "val", "valid", "validation")
"""Folders of splits; of several references the first of these names is used."""


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return name.lower().endswith(SUFFIXES)


def _is_split(name: str) -> bool:
    return name.lower() in TRAIN + REFERENCE


class ImageFolders(Source):
    """Classes in the order of their names, images in the order of theirs."""

    kind = "images"
    describes = "image files as split/class/file or class/file (folder, tar or zip)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """Any image file."""
        return any(is_image(file.name) for file in files)

    def listing(self) -> Listing:
        """Splits from the first level of folders, classes from the last."""
        splits, left_out = self._splits()
        train, reference = splits
        classes = sorted({name for name, _ in train})
        index = {name: k for k, name in enumerate(classes)}
        extra = sorted({name for name, _ in reference} - index.keys())
        if extra:
            raise UserError(
                f"{self.tree.path} has the class {extra[0]!r} in its reference but not in its "
                "training images."
            )
        self._order = {path: i for i, (_, path) in enumerate([*train, *reference])}
        labels = np.array([index[name] for name, _ in [*train, *reference]], dtype=np.int64)
        check_labels(labels, classes, len(train), self.tree.path)
        return Listing(tuple(classes), labels, len(train), self._reference_from, left_out=left_out)

    def _splits(self) -> tuple[tuple[list[tuple[str, str]], list[tuple[str, str]]], int]:
        """((class, path) of training images, of reference images), and how many are left out."""
        paths = [file.name for file in self.files if is_image(file.name)]
        # One class alone is a folder that all share, and no root.
        root = strip_root(paths, _is_split)
        deepest = max(len(PurePosixPath(path).parts) for path in paths)
        while root and len(PurePosixPath(root).parts) > deepest - 2:
            root = "".join(f"{part}/" for part in PurePosixPath(root).parts[:-1])
        found: dict[str, list[tuple[str, str]]] = {}
        for path in paths:
            parts = PurePosixPath(path[len(root) :]).parts
            split = parts[0].lower() if _is_split(parts[0]) else ""
            if len(parts) != (3 if split else 2):
                raise UserError(
                    f"{self.tree.path} has the image {path!r}, which is not in a folder of its "
                    "class: the forms are split/class/file (splits train and test or val) and "
                    "class/file."
                )
            found.setdefault(split, []).append((parts[-2], path))
        if "" in found and len(found) > 1:
            raise UserError(
                f"{self.tree.path} mixes split/class/file with class/file, as in "
                f"{found[''][0][1]!r}; keep one of the two."
            )
        train = found.pop("", []) + [item for name in TRAIN for item in found.pop(name, [])]
        if not train:
            raise UserError(f"{self.tree.path} has no training images: no folder named 'train'.")
        self._reference_from = next((name for name in REFERENCE if name in found), "")
        reference = found.pop(self._reference_from, [])
        return (sorted(train), sorted(reference)), sum(map(len, found.values()))

    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """In the archive's order."""
        for name, file in self.tree.read(self._order):
            yield self._order[name], name, read_encoded(self.tree.path, file, name)
