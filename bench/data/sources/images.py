"""Image files: in folders of splits and classes, or with EDM's and StyleGAN's dataset.json."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

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
FLAT = {"", "images"}
"""Names of folders that hold the images of a split of all classes."""
TABLES = (".csv", ".tsv", ".txt")
TABLE_MOST = 64 << 20


class LabelledImages(EncodedImages):
    """`{"labels": [["00000/img00000000.png", 6], ...]}` next to the images."""

    kind = "dataset.json"
    describes = "images with a dataset.json (EDM's ZIP or folder)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A dataset.json in the root or below."""
        return bool(index_files(file.name for file in files))

    is_sample = staticmethod(is_image)
    """Whether a file of this name is one of the samples."""

    def listing(self) -> Listing:
        """Images in the order of their names; there is one split."""
        paths = [file.name for file in self.files if self.is_sample(file.name)]
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
        ignored = tuple(name for name in other_files(names) if not self.is_sample(name))
        return Listing(classes, labels, len(labels), "", ignored=ignored)


class LabelledLatents(LabelledImages):
    """The same with arrays of latents, `00000/img00000000.npy`."""

    kind = "latents"
    describes = "latents as .npy files with a dataset.json (EDM2's ZIP or folder)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A dataset.json, arrays, and no images."""
        names = [file.name for file in files]
        some = any(map(cls.is_sample, names)) and not any(map(is_image, names))
        return some and super().recognises(files)

    @staticmethod
    def is_sample(name: str) -> bool:
        """Whether a file is an array."""
        return name.lower().endswith(".npy")


class ImageFolders(EncodedImages):
    """`split/class/file` or `class/file`; classes and images in the order of their names."""

    kind = "images"
    _table = ""
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
        names = [file.name for file in self.files if file.name != self._table]
        ignored = (*by_folder([*filter(is_image, names)])[1], *other_files(names))
        return Listing(
            classes, labels, len(train), reference_from, left_out=left_out, ignored=ignored
        )

    def _splits(self) -> tuple[Labelled, Labelled, str, int]:
        """Training images, reference images, the split of the latter, number of images skipped."""
        found: dict[str, Labelled] = {}
        for path, split, name in by_folder([f.name for f in self.files if is_image(f.name)])[0]:
            found.setdefault(split, []).append((spelled(name), path))
        if "" in found and len(found) > 1:
            raise UserError(
                f"{self.tree.path} mixes split/class/file with class/file, as in "
                f"{found[''][0][1]!r}; keep one of the two."
            )
        train = found.pop("", []) + [item for name in TRAIN for item in found.pop(name, [])]
        if not train:
            raise UserError(f"{self.tree.path} has no training images: no folder named 'train'.")
        self._check_folders(train)
        classes = {name for name, _ in train}
        left_out = 0
        for split, images in list(found.items()):
            if {name for name, _ in images} <= FLAT - classes:
                found[split] = self._by_table([path for _, path in images], classes)
            else:
                self._check_folders(images)
            if not found[split]:
                left_out += len(images)
                del found[split]
        reference_from = next((name for name in REFERENCE if name in found), "")
        reference = found.pop(reference_from, [])
        left_out += sum(map(len, found.values()))
        return sorted(train), sorted(reference), reference_from, left_out

    def _check_folders(self, images: Labelled) -> None:
        for name, path in images:
            if not name or "/" in name:
                raise UserError(
                    f"{self.tree.path} has the image {path!r}, which is not in a folder of its "
                    "class: the forms are split/class/file (splits train and test or val) and "
                    "class/file."
                )

    def _by_table(self, paths: Sequence[str], classes: Collection[str]) -> Labelled:
        """Images with their classes by a table of the tree; empty if no table names one.

        Lines are the name of a file and its class, as in Tiny ImageNet's val_annotations.txt and
        Kaggle's LOC_val_solution.csv; what follows is ignored.
        """
        stems = {PurePosixPath(path).stem: path for path in paths}
        tables = [f.name for f in self.files if f.name.endswith(TABLES) and f.size <= TABLE_MOST]
        for name, text in self.tree.contents(tables, TABLE_MOST):
            found: dict[str, str] = {}
            for line in text.decode("utf-8", "replace").splitlines():
                first, _, rest = line.replace("\t", ",").partition(",")
                label = spelled(rest.replace(",", " ").split(" ")[0])
                path = stems.get(PurePosixPath(first).name, stems.get(PurePosixPath(first).stem))
                if path is not None and label in classes:
                    found[path] = label
            if not found:
                continue
            for path in paths:
                if path not in found:
                    raise UserError(f"{self.tree.path}: {name!r} has no class for {path!r}.")
            self._table = name
            return [(label, path) for path, label in found.items()]
        return []
