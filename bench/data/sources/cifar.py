"""CIFAR-10 and CIFAR-100 as published for Python: pickled batches, in a tar.gz or unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from bench.data.batches import batch_labels, batch_pixels, read_batch
from bench.data.decode import Pixels
from bench.data.labels import Labels, check_labels
from bench.data.sources.base import Batches, Listing
from bench.data.trees import File
from bench.system.errors import UserError, plain

SIDE = 32


@dataclass(frozen=True)
class _Form:
    meta: str
    names: str
    labels: str
    train: tuple[str, ...]
    test: str


_FORMS = (
    _Form("batches.meta", "label_names", "labels",
          tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    _Form("meta", "fine_label_names", "fine_labels", ("train",), "test"),
)  # fmt: skip


def _folder(files: Sequence[File], form: _Form) -> str | None:
    """The prefix of the folder with the form's meta file and a training batch, or None."""
    names = {file.name for file in files}
    for name in sorted(names):
        folder = name.removesuffix(PurePosixPath(name).name)
        if name == folder + form.meta and any(folder + part in names for part in form.train):
            return folder
    return None


class Cifar(Batches):
    """Images in the order of the batches; `test_batch` (or `test`) is the reference."""

    kind = "cifar"
    describes = "CIFAR-10 or CIFAR-100 as published for Python (cifar-10-python.tar.gz or unpacked)"

    @classmethod
    def recognises(cls, files: Sequence[File]) -> bool:
        """A meta file next to a training batch."""
        return any(_folder(files, form) is not None for form in _FORMS)

    def listing(self) -> Listing:
        """Labels of all batches; UserError if one is missing."""
        form, folder = next(
            (form, folder) for form in _FORMS if (folder := _folder(self.files, form)) is not None
        )
        names = {file.name for file in self.files}
        batches = [folder + part for part in (*form.train, form.test)]
        for name in batches:
            if name not in names:
                raise UserError(f"{self.tree.path} is incomplete: it has no {name!r}.")
        labels: dict[str, Labels] = {}
        classes: tuple[str, ...] = ()
        for name, file in self.tree.read([*batches, folder + form.meta]):
            batch = read_batch(self.tree.path, file, name)
            if name == folder + form.meta:
                classes = self._classes(name, batch.get(form.names))
                continue
            n = len(batch_pixels(self.tree.path, name, batch, SIDE))
            labels[name] = batch_labels(self.tree.path, name, batch.get(form.labels), n)
        joined = self._joined(batches, labels)
        train_n = len(joined) - len(labels[batches[-1]])
        check_labels(joined, classes, train_n, self.tree.path)
        return Listing(classes, joined, train_n, "test", (3, SIDE, SIDE))

    def _classes(self, name: str, found: object) -> tuple[str, ...]:
        names = found if isinstance(found, list) else []
        texts = [c.decode("latin1") if isinstance(c, bytes) else c for c in names]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{self.tree.path}: {name!r} has no class names.")
        return tuple(map(plain, texts))

    def _blocks(self, name: str, file: IO[bytes]) -> Iterator[Pixels]:
        yield batch_pixels(self.tree.path, name, read_batch(self.tree.path, file, name), SIDE)
