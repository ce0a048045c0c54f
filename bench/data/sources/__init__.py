"""The forms of data sets on disk that are recognised.

To add one, write its `Source` in a file here and add it to `SOURCES`.
"""

from __future__ import annotations

from bench.data.sources.base import Listing, Source
from bench.data.sources.cifar import Cifar
from bench.data.sources.idx import Idx
from bench.data.sources.imagenet import ImageNetBatches
from bench.data.sources.images import ImageFolders, LabelledImages, LabelledLatents
from bench.data.trees import Tree
from bench.system.errors import UserError

SOURCES: tuple[type[Source], ...] = (
    Cifar, ImageNetBatches, Idx, LabelledLatents, LabelledImages, ImageFolders
)  # fmt: skip
"""The first that recognises a tree's files reads it: the most specific first."""

__all__ = ["SOURCES", "Listing", "Source", "find_source"]


def find_source(tree: Tree) -> Source:
    """The form of a tree; UserError, with all known forms, if it has none of them."""
    files = tree.files()
    if not files:
        raise UserError(f"{tree.path} holds no files.")
    for cls in SOURCES:
        if cls.recognises(files):
            return cls(tree, files)
    known = "; ".join(cls.describes for cls in SOURCES)
    raise UserError(
        f"{tree.path} holds no data set that is recognised (its first file is {files[0].name!r}). "
        f"Known are: {known}."
    )
