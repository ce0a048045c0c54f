"""What people have on disk: the forms that are recognised.

To add one, put its `Source` into a file here and name both in `READERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from bench.data.sources.base import Listing, Source
from bench.data.trees import Tree
from bench.system.errors import UserError

READERS = (
    "cifar.Cifar",
    "imagenet.ImageNetBatches",
    "idx.Idx",
    "edm.LabelledImages",
    "images.ImageFolders",
)
"""File and class. The first that recognises a tree's files reads it: the most specific first."""

__all__ = ["READERS", "Listing", "Source", "find_source", "sources"]


def sources() -> list[type[Source]]:
    """Every reader, in the order in which they are asked."""
    return [
        cast("type[Source]", getattr(import_module(f"{__name__}.{file}"), name))
        for file, name in (reader.split(".") for reader in READERS)
    ]


def find_source(tree: Tree) -> Source:
    """The form of a tree, or a UserError that lists all forms."""
    files = tree.files()
    if not files:
        raise UserError(f"{tree.path} holds no files.")
    for cls in sources():
        if cls.recognises(files):
            return cls(tree, files)
    known = "; ".join(cls.describes for cls in sources())
    raise UserError(
        f"{tree.path} holds no data set that is recognised (its first file is {files[0].name!r}). "
        f"Known are: {known}."
    )
