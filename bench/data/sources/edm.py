"""Images with a dataset.json, the form that EDM and StyleGAN prepare (ZIP or folder)."""

from __future__ import annotations

from collections.abc import Sequence

from bench.data.decode import is_image
from bench.data.labels import INDEX, check_labels, index_labels
from bench.data.sources.base import EncodedImages, Listing
from bench.data.trees import File
from bench.system.errors import UserError


class LabelledImages(EncodedImages):
    """`{"labels": [["00000/img00000000.png", 6], ...]}` beside the images."""

    kind = "dataset.json"
    describes = "images with a dataset.json (EDM's ZIP or folder)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A dataset.json at the root."""
        return any(file.name == INDEX for file in files)

    def listing(self) -> Listing:
        """Images in the order of their names; there is one split."""
        paths = [file.name for file in self.files if is_image(file.name)]
        self._order = {path: i for i, path in enumerate(paths)}
        labels = index_labels(self.tree, paths)
        if labels is None:
            raise UserError(
                f"{self.tree.path}: {INDEX} has no labels, and class-conditional methods need "
                "them; make the file with labels."
            )
        classes = tuple(str(k) for k in range(int(labels.max(initial=-1)) + 1))
        check_labels(labels, classes, len(labels), self.tree.path)
        return Listing(classes, labels, len(labels), "")
