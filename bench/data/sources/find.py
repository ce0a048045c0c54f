"""The registry of forms, and which of them a folder or archive is."""

from __future__ import annotations

from bench.data.sources.base import Source
from bench.data.sources.cifar import Cifar
from bench.data.sources.edm import LabelledImages
from bench.data.sources.idx import Idx
from bench.data.sources.imagenet import ImageNetBatches
from bench.data.sources.images import ImageFolders
from bench.data.trees import Tree
from bench.system.errors import UserError

SOURCES: list[type[Source]] = [Cifar, ImageNetBatches, Idx, LabelledImages, ImageFolders]
"""The first that recognises a tree's files reads it, so that the most specific come first."""


def find_source(tree: Tree) -> Source:
    """The form of a tree, or a UserError that lists all forms."""
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
