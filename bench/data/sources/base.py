"""What a source of images is, and what its labels must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bench.data.trees import File, Tree
from bench.system.errors import UserError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Listing:
    """What a source holds, known before the first pixel is read.

    `labels` (N,) in [0, K) in the source's own fixed order, the training split first: the first
    `train_n` are training images, the rest the reference, which may be empty. `shape` (C, H, W),
    or None where images are encoded and may differ. `left_out` counts images of further splits.
    """

    class_names: tuple[str, ...]
    labels: Labels
    train_n: int
    reference_from: str
    shape: tuple[int, int, int] | None = None
    left_out: int = 0


class Source(ABC):
    """Images of one recognised form in a tree of files."""

    kind: ClassVar[str]
    describes: ClassVar[str]

    def __init__(self, tree: Tree, files: Sequence[File]) -> None:
        self.tree, self.files = tree, files

    @classmethod
    @abstractmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """Whether files of these names are of this form."""

    @abstractmethod
    def listing(self) -> Listing:
        """Labels, classes and splits; a UserError says what is wrong with them."""

    @abstractmethod
    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """Every image once: its place in `listing().labels`, its name for people, and its content.

        Content is uint8 (C, H, W), or the bytes of an image file.
        """


def check_labels(
    labels: Labels, class_names: Sequence[str], train_n: int, path: object, first: int = 0
) -> Labels:
    """`labels` if they are in [0, K) and every class has a training image, else a UserError.

    `first` is the number that the source gives to class 0.
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
