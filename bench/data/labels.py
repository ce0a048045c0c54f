"""The class of every image: by its folder, by an index next to the images, or by an array."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from bench.data.trees import Tree
from bench.data.untrusted import DAMAGE, HEADER_MOST, read_array
from bench.system.errors import UserError, said
from bench.system.files import read_whole

Labels = npt.NDArray[np.int64]

INDEX = "dataset.json"
"""The index of EDM and StyleGAN: `{"labels": [["00000/img00000000.png", 6], ...]}`."""
INDEX_MOST = 1 << 29
CLASSES_MOST = 100_000
TRAIN = ("train", "training")
REFERENCE = ("test", "val", "valid", "validation")
"""Folders of splits; the first of these references that exists is used."""


def split_and_class(paths: Sequence[str]) -> list[tuple[str, str]]:
    """The split of every image, in lower case, and the folders below it; '' if there is none.

    Folders shared by all images are skipped, except the last, which is then the only class.
    """
    parents = [PurePosixPath(path).parts[:-1] for path in paths]
    deepest, root = max(map(len, parents), default=0), 0
    for level in range(min(*map(len, parents), deepest - 1) if parents else 0):
        if len({parts[level] for parts in parents}) > 1 or is_split(parents[0][level]):
            break
        root = level + 1
    found = []
    for parts in parents:
        split = parts[root].lower() if len(parts) > root and is_split(parts[root]) else ""
        found.append((split, "/".join(parts[root + bool(split) :])))
    return found


def is_split(name: str) -> bool:
    """Whether a folder of this name holds a split."""
    return name.lower() in TRAIN + REFERENCE


def folder_labels(paths: Sequence[str]) -> Labels | None:
    """Classes (N,) by the folders of images, in the order of their names.

    None if an image is not in a class folder. Split folders are not classes, unless other images
    are next to them: then a folder called 'train' is a class.
    """
    found = split_and_class(paths)
    folders = [folder for _, folder in found]
    if len({bool(split) for split, _ in found}) > 1:
        folders = [path.rpartition("/")[0] for path in paths]
    return numbered(folders)[1] if all(folders) else None


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    """The distinct names in order, and the index (N,) of each name among them."""
    classes, labels = np.unique(np.array(names, dtype=object), return_inverse=True)
    return tuple(classes.tolist()), labels.astype(np.int64)


def index_labels(tree: Tree, paths: Sequence[str]) -> Labels | None:
    """Classes (N,) of images by the tree's dataset.json; None if it has no labels.

    Raises UserError unless it labels each of these images once, and no others.
    """
    ((_, text),) = tree.contents([INDEX], INDEX_MOST)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{tree.path}: {INDEX} is not JSON.") from None
    pairs = content.get("labels") if isinstance(content, dict) else None
    if pairs is None:
        return None
    table: dict[str, int] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        match pair:
            case [str() as name, int() as label] if (
                not isinstance(label, bool) and 0 <= label < CLASSES_MOST and name not in table
            ):
                table[name] = label
            case _:
                raise UserError(
                    f"{tree.path}: {INDEX} has the entry {str(pair)[:80]}: it needs one entry per "
                    'image, such as ["00000/img00000000.png", 6].'
                )
    for path in paths:
        if path not in table:
            raise UserError(f"{tree.path}: {INDEX} has no label for {path!r}.")
    for path in table.keys() - set(paths):
        raise UserError(f"{tree.path}: {INDEX} labels {path!r}, which is missing.")
    return np.array([table[path] for path in paths], dtype=np.int64)


def whole_numbers(found: object, n: int, least: int = 0) -> Labels:
    """An array as classes (n,); ValueError unless it has `n` whole numbers, at least `least`."""
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.shape != (n,):
        kind = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "no array"
        raise ValueError(f"{kind}, not one whole number for each of {n:,}")
    if (found < least).any() or (found >= CLASSES_MOST).any():
        raise ValueError(f"from {found.min()} to {found.max()}, not from 0 to {CLASSES_MOST - 1:,}")
    return found.astype(np.int64)


def read_labels(path: Path, n: int) -> Labels:
    """Classes (n,) from an .npy array, or from text with one whole number per line."""
    try:
        if path.suffix.lower() == ".npy":
            found = read_array(path, 8 * n + HEADER_MOST)
        else:
            found = np.array([int(line) for line in read_whole(path).decode().split()], np.int64)
    except DAMAGE as error:
        raise UserError(
            f"{path} holds no classes ({said(error)}): give an .npy array or text with one whole "
            "number per line."
        ) from None
    try:
        return whole_numbers(found, n)
    except ValueError as error:
        raise UserError(f"{path} holds {error} samples, one class from 0 each.") from None


def check_labels(
    labels: Labels, class_names: Sequence[str], train_n: int, path: object, first: int = 0
) -> Labels:
    """`labels`; UserError unless they are in [0, K) and every class has a training image.

    `first` is the source's number of class 0.
    """
    count = len(class_names)
    if len(labels) == 0 or train_n == 0:
        raise UserError(f"{path} holds no training images.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= count:
        wrong = (low if low < 0 else high) + first
        raise UserError(
            f"{path} has the label {wrong}, outside of {first}..{count - 1 + first}, its "
            f"{count} classes."
        )
    seen = np.bincount(labels[:train_n], minlength=count)
    if (seen == 0).any():
        name = class_names[int(seen.argmin())]
        raise UserError(f"{path} has no training image of class {name!r}.")
    return labels
