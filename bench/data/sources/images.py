"""Image files: in folders of splits and classes, or with EDM's and StyleGAN's dataset.json."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.decode import is_image
from bench.data.labels import (
    REFERENCE,
    TRAIN,
    by_folder,
    check_labels,
    index_files,
    index_labels,
    numbered,
    spelled,
)
from bench.data.leftovers import other_files
from bench.data.sources.base import EncodedImages, Listing
from bench.data.trees import File
from bench.system.errors import UserError

Labelled = list[tuple[str, str]]
"""(class, path) of images."""


class LabelledImages(EncodedImages):
    """`{"labels": [["00000/img00000000.png", 6], ...]}` next to the images."""

    kind = "dataset.json"
    describes = "images with a dataset.json (EDM's ZIP or folder)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A dataset.json in the root or below."""
        return bool(index_files(file.name for file in files))

    def listing(self) -> Listing:
        """Images in the order of their names; there is one split."""
        paths = [file.name for file in self.files if is_image(file.name)]
        self._order = {path: i for i, path in enumerate(paths)}
        names = [file.name for file in self.files]
        indices = index_files(names)
        labels = index_labels(self.tree, indices, paths)
        if labels is None:
            raise UserError(
                f"{self.tree.path}: {' and '.join(indices)} has no labels, which class-conditional "
                "methods need: prepare it with labels."
            )
        classes = tuple(str(k) for k in range(int(labels.max(initial=-1)) + 1))
        check_labels(labels, classes, len(labels), self.tree.path)
        return Listing(classes, labels, len(labels), "", ignored=tuple(other_files(names)))


class ImageFolders(EncodedImages):
    """`split/class/file` or `class/file`; classes and images in the order of their names."""

    kind = "images"
    describes = "image files as split/class/file or class/file (folder, tar or zip)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """Any image file."""
        return any(is_image(file.name) for file in files)

    def listing(self) -> Listing:
        """Splits from the first level of folders, classes from the last."""
        train, reference, reference_from, left_out = self._splits()
        found = numbered([name for name, _ in train])
        classes = found.names
        index = {name: k for k, name in enumerate(classes)}
        extra = sorted({name for name, _ in reference} - index.keys())
        if extra:
            raise UserError(
                f"{self.tree.path} has the class {extra[0]!r} in its reference but not in its "
                "training images."
            )
        self._order = {path: i for i, (_, path) in enumerate([*train, *reference])}
        others = np.array([index[name] for name, _ in reference], dtype=np.int64)
        labels = np.concatenate([found.labels, others])
        check_labels(labels, classes, len(train), self.tree.path)
        names = [file.name for file in self.files]
        ignored = (*by_folder([*filter(is_image, names)])[1], *other_files(names))
        return Listing(
            classes, labels, len(train), reference_from, left_out=left_out, ignored=ignored
        )

    def _splits(self) -> tuple[Labelled, Labelled, str, int]:
        """Training images, reference images, the split of the latter, number of images skipped."""
        paths = [file.name for file in self.files if is_image(file.name)]
        found: dict[str, Labelled] = {}
        for path, split, name in by_folder(paths)[0]:
            if not name or "/" in name:
                raise UserError(
                    f"{self.tree.path} has the image {path!r}, which is not in a folder of its "
                    "class: the forms are split/class/file (splits train and test or val) and "
                    "class/file."
                )
            found.setdefault(split, []).append((spelled(name), path))
        if "" in found and len(found) > 1:
            raise UserError(
                f"{self.tree.path} mixes split/class/file with class/file, as in "
                f"{found[''][0][1]!r}; keep one of the two."
            )
        train = found.pop("", []) + [item for name in TRAIN for item in found.pop(name, [])]
        if not train:
            raise UserError(f"{self.tree.path} has no training images: no folder named 'train'.")
        reference_from = next((name for name in REFERENCE if name in found), "")
        reference = found.pop(reference_from, [])
        return sorted(train), sorted(reference), reference_from, sum(map(len, found.values()))
