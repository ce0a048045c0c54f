"""The class of every image: by its folder, by an index next to the images, or by an array."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from bench.data.trees import Tree
from bench.data.untrusted import DAMAGE, HEADER_MOST, read_array
from bench.system.errors import UserError, plain, said
from bench.system.files import read_whole

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Classes:
    """The class of each sample, (N,), and the names of the classes; () if they have only numbers.

    Labels with names are in [0, K).
    """

    labels: Labels
    names: tuple[str, ...] = ()


INDEX = "dataset.json"
"""The index of EDM and StyleGAN: `{"labels": [["00000/img00000000.png", 6], ...]}`."""
INDEX_MOST = 1 << 29
CLASSES_MOST = 100_000
_WORDS = re.compile(r"(\D*)(\d*)")
TRAIN = ("train", "training")
REFERENCE = ("test", "val", "valid", "validation")
"""Folders of splits; the first of these references that exists is used."""


class Placed(NamedTuple):
    """An image by its folders: split in lower case and class, each '' if there is none."""

    path: str
    split: str
    name: str


def by_folder(paths: Sequence[str]) -> tuple[list[Placed], list[str]]:
    """Every image with its split and class, and the images left out: those beside class folders.

    Folders shared by all images are skipped, except the last, which is then the only class. Folders
    inside a class are part of it. Split folders are not classes, unless other images are next to
    them: then a folder called 'train' is a class.
    """
    strays = _strays(paths)
    kept = [path for path in paths if path not in strays]
    parents = [PurePosixPath(path).parts[:-1] for path in kept]
    deepest, root = max(map(len, parents), default=0), 0
    for level in range(min(*map(len, parents), deepest - 1) if parents else 0):
        if len({parts[level] for parts in parents}) > 1 or is_split(parents[0][level]):
            break
        root = level + 1
    groups: dict[str, dict[str, tuple[str, ...]]] = {}
    for path, parts in zip(kept, parents, strict=True):
        split = parts[root].lower() if len(parts) > root and is_split(parts[root]) else ""
        groups.setdefault(split, {})[path] = parts[root + bool(split) :]
    placed = {
        path: Placed(path, split, name)
        for split, below in groups.items()
        for path, name in _class_names(below).items()
    }
    for split, below in groups.items():
        if split and any(below.values()):
            strays |= {path for path, parts in below.items() if not parts}
    found = [placed[path] for path in kept if path not in strays]
    return found, [path for path in paths if path in strays]


def _strays(paths: Sequence[str]) -> set[str]:
    """Images in a folder below which most images are, in folders of their own."""
    folders = [str(PurePosixPath(path).parent) for path in paths]
    below: Counter[str] = Counter()
    for folder, count in Counter(folders).items():
        for above in map(str, PurePosixPath(folder).parents):
            below[above] += count
    return {
        path for path, folder in zip(paths, folders, strict=True) if below[folder] > len(paths) / 2
    }


def _class_names(below: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The class of each image of a split by the folders below the split, such as ('cat', 'images').

    A last folder that all share is no class, as in Tiny ImageNet.
    """
    found = {path: parts for path, parts in below.items() if parts}
    while len({len(parts) for parts in found.values()}) == 1:
        depth = len(next(iter(found.values())))
        if depth == 1 or len({parts[-1] for parts in found.values()}) > 1:
            break
        found = {path: parts[:-1] for path, parts in found.items()}
    if any(len(parts) == 1 for parts in found.values()):
        found = {path: parts[:1] for path, parts in found.items()}
    return {path: "/".join(found.get(path, ())) for path in below}


def is_split(name: str) -> bool:
    """Whether a folder of this name holds a split."""
    return name.lower() in TRAIN + REFERENCE


def class_of_folders(placed: Sequence[Placed]) -> Classes | None:
    """Classes by the folders of images; None if an image is not in a class folder."""
    folders = [image.name for image in placed]
    if len({bool(image.split) for image in placed}) > 1:
        folders = [image.path.rpartition("/")[0] for image in placed]
    return numbered(folders) if all(folders) else None


def numbered(names: Sequence[str]) -> Classes:
    """Classes in the order of their names; by number if all names are numbers."""
    spellings = [spelled(name) for name in names]
    order = sorted(set(spellings))
    if all(name.isascii() and name.isdigit() for name in order):
        order.sort(key=lambda name: (int(name), name))
    index = {name: k for k, name in enumerate(order)}
    return Classes(np.array([index[name] for name in spellings], dtype=np.int64), tuple(order))


def spelled(name: str) -> str:
    """A class's name: both Unicode spellings of an accented letter are one name."""
    return normalize("NFC", plain(name))


def index_files(names: Iterable[str]) -> list[str]:
    """The dataset.json files of a tree, in its root or in folders below."""
    return [name for name in names if PurePosixPath(name).name == INDEX]


def index_labels(tree: Tree, indices: Sequence[str], paths: Sequence[str]) -> Labels | None:
    """Classes (N,) of images by the tree's dataset.json files; None if one has no labels.

    Each lists the images by their path from its own folder. Raises UserError unless they label each
    of these images once, and no others.
    """
    table: dict[str, int] = {}
    for name, text in tree.contents(indices, INDEX_MOST):
        found = _index(tree.path, name, text)
        if found is None:
            return None
        folder = name.removesuffix(INDEX)
        table |= {folder + path: label for path, label in found.items()}
    where = " and ".join(indices)
    for path in paths:
        if path not in table:
            raise UserError(f"{tree.path}: {where} has no label for {path!r}.")
    for path in table.keys() - set(paths):
        raise UserError(f"{tree.path}: {where} labels {path!r}, which is missing.")
    return np.array([table[path] for path in paths], dtype=np.int64)


def _index(tree: Path, name: str, text: bytes) -> dict[str, int] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{tree}: {name} is not JSON.") from None
    pairs = content.get("labels") if isinstance(content, dict) else None
    if pairs is None:
        return None
    table: dict[str, int] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        match pair:
            case [str() as path, int() as label] if (
                not isinstance(label, bool) and 0 <= label < CLASSES_MOST and path not in table
            ):
                table[path] = label
            case _:
                raise UserError(
                    f"{tree}: {name} has the entry {str(pair)[:80]}: it needs one entry per "
                    'image, such as ["00000/img00000000.png", 6].'
                )
    return table


def whole_numbers(found: object, n: int, least: int = 0) -> Labels:
    """An array as classes (n,); ValueError unless it has `n` whole numbers, at least `least`."""
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.shape != (n,):
        kind = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "no array"
        raise ValueError(f"{kind}, not one whole number for each of {n:,}")
    if (found < least).any() or (found >= CLASSES_MOST).any():
        raise ValueError(f"from {found.min()} to {found.max()}, not from 0 to {CLASSES_MOST - 1:,}")
    return found.astype(np.int64)


def read_labels(path: Path, n: int, names: Sequence[str] | None = None) -> Labels:
    """Classes (n,) from an .npy array, or from text with one line per sample.

    A line is a whole number, or the name of a file and a number. Without names, the numbers follow
    the order of an array, or of `names`, the files of the samples, sorted. UserError if the sorted
    order is not clear, as of 10.png and 9.png.
    """
    try:
        if path.suffix.lower() == ".npy":
            found = read_array(path, 8 * n + HEADER_MOST)
        else:
            lines = [
                line.replace(",", " ").split() for line in read_whole(path).decode().split("\n")
            ]
            lines = [line for line in lines if line]
            if names is not None and len(lines) > 1 and all(len(line) == 2 for line in lines):
                return _by_file(path, lines, names)
            found = np.array([int(word) for line in lines for word in line], np.int64)
    except DAMAGE as error:
        raise UserError(
            f"{path} holds no classes ({said(error)}): give an .npy array or text with one whole "
            "number per line."
        ) from None
    try:
        labels = whole_numbers(found, n)
    except ValueError as error:
        raise UserError(f"{path} holds {error} samples, one class from 0 each.") from None
    return labels if names is None else labels[_ranks(path, names)]


def _ranks(path: Path, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The place of each name in the sorted names."""
    order = sorted(names)
    natural = sorted(names, key=lambda name: [(t, int(d or 0)) for t, d in _WORDS.findall(name)])
    for first, second in zip(order, natural, strict=True):
        if first != second:
            raise UserError(
                f"{path} gives classes in the order of the file names, which is not clear: is "
                f"{first!r} or {second!r} first? Write a line per image instead: name, class."
            )
    place = {name: k for k, name in enumerate(order)}
    return np.array([place[name] for name in names], dtype=np.int64)


def _by_file(path: Path, lines: Sequence[Sequence[str]], names: Sequence[str]) -> Labels:
    """Classes of files by lines of name and number; the names may lack folders and suffixes."""
    spellings: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        pure = PurePosixPath(name)
        for spelling in {name, pure.name, pure.stem, str(pure.with_suffix(""))}:
            spellings.setdefault(spelling, []).append(k)
    found = np.full(len(names), -1, np.int64)
    for name, number in lines:
        places = spellings.get(name, [])
        if len(places) != 1 or found[places[0]] >= 0:
            problem = "no image" if not places else "several images or lines"
            raise UserError(f"{path} names {name!r}, of which there is {problem}.")
        found[places[0]] = int(number)
    if (found < 0).any():
        raise UserError(f"{path} has no class for {names[int(found.argmin())]!r}.")
    return whole_numbers(found, len(names))


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
