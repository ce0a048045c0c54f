"""Images with a dataset.json, the form that EDM and StyleGAN prepare (ZIP or folder)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from bench.data.decode import read_encoded
from bench.data.sources.base import Listing, Pixels, Source, check_labels
from bench.data.sources.images import is_image
from bench.data.trees import File, damage_named
from bench.system.errors import UserError

INDEX = "dataset.json"
MAX_INDEX = 1 << 29


class LabelledImages(Source):
    """`{"labels": [["00000/img00000000.png", 6], ...]}` beside the images."""

    kind = "dataset.json"
    describes = "images with a dataset.json (EDM's ZIP or folder)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A dataset.json at the root."""
        return any(file.name == INDEX for file in files)

    def listing(self) -> Listing:
        """Images in the order of their names; there is one split."""
        table = self._table()
        paths = [file.name for file in self.files if is_image(file.name)]
        for path in paths:
            if path not in table:
                raise UserError(f"{self.tree.path}: {INDEX} has no label for {path!r}.")
        for path in table.keys() - set(paths):
            raise UserError(f"{self.tree.path}: {INDEX} labels {path!r}, which is not there.")
        self._order = {path: i for i, path in enumerate(paths)}
        labels = np.array([table[path] for path in paths], dtype=np.int64)
        classes = tuple(str(k) for k in range(int(labels.max(initial=-1)) + 1))
        check_labels(labels, classes, len(labels), self.tree.path)
        return Listing(classes, labels, len(labels), "")

    def _table(self) -> dict[str, int]:
        size = next(file.size for file in self.files if file.name == INDEX)
        if size > MAX_INDEX:
            raise UserError(f"{self.tree.path}: {INDEX} of {size:,} bytes is too large to be one.")
        with self.tree.open(INDEX) as file, damage_named(self.tree.path, INDEX):
            try:
                content = json.loads(file.read())
            except (ValueError, RecursionError):
                raise UserError(f"{self.tree.path}: {INDEX} is not JSON.") from None
        pairs = content.get("labels") if isinstance(content, dict) else None
        if pairs is None:
            raise UserError(
                f"{self.tree.path}: {INDEX} has no labels, and class-conditional methods need "
                "them; make the file with labels."
            )
        table: dict[str, int] = {}
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            match pair:
                case [str() as name, int() as label] if (
                    not isinstance(label, bool) and 0 <= label < 100_000 and name not in table
                ):
                    table[name] = label
                case _:
                    raise UserError(
                        f"{self.tree.path}: {INDEX} has the entry {str(pair)[:80]}, and not "
                        'something like ["00000/img00000000.png", 6], once an image.'
                    )
        return table

    def images(self) -> Iterator[tuple[int, str, bytes | Pixels]]:
        """In the archive's order."""
        for name, file in self.tree.read(self._order):
            yield self._order[name], name, read_encoded(self.tree.path, file, name)
