"""The base of all sources of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, ClassVar

import numpy as np

from bench.data.decode import Pixels
from bench.data.labels import Labels
from bench.data.trees import File, Tree, damage_named


@dataclass(frozen=True)
class Listing:
    """The content of a source, known before the first pixel is read.

    `labels` (N,) in [0, K) in the source's own fixed order: first `train_n` training images, then
    the reference, which may be empty. `shape` (C, H, W), or None if images are encoded and may
    differ. `left_out` counts images of further splits; `ignored` names files that are no images,
    and images beside class folders.
    """

    class_names: tuple[str, ...]
    labels: Labels
    train_n: int
    reference_from: str
    shape: tuple[int, int, int] | None = None
    left_out: int = 0
    ignored: tuple[str, ...] = ()


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
        """Labels, classes and splits; UserError if something is wrong with them."""

    @abstractmethod
    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """Every image once: its index in `listing().labels`, its name in messages, its content.

        The content is uint8 (C, H, W), or the bytes of an image file.
        """


class EncodedImages(Source):
    """Files of one image each; `listing` sets their order."""

    _order: Mapping[str, int]

    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """Every image once, in the tree's order."""
        for name, content in self.tree.contents(self._order):
            yield self._order[name], name, content


class Batches(Source):
    """Files of many images each, with labels; `listing` calls `_joined`."""

    _starts: Mapping[str, int]

    def _joined(self, names: Sequence[str], labels: Mapping[str, Labels]) -> Labels:
        """The concatenated labels of all batches."""
        counts = [len(labels[name]) for name in names]
        self._starts = dict(zip(names, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        return np.concatenate([labels[name] for name in names])

    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """Every image once, batch after batch in the tree's order."""
        for name, file in self.tree.read(self._starts):
            index = self._starts[name]
            with damage_named(self.tree.path, name):
                for block in self._blocks(name, file):
                    for image in block:
                        yield index, f"{name}[{index}]", image
                        index += 1

    @abstractmethod
    def _blocks(self, name: str, file: IO[bytes]) -> Iterator[Pixels]:
        """The images of a batch in blocks, uint8 (n, C, H, W)."""
