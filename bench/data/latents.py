"""Data sets of latents: for training, with the images of another data set to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.arrange import Arrangement
from bench.data.base import Dataset, Split
from bench.data.decoder import FOLDER, IDENTITY, DecoderSource
from bench.data.prepared import PreparedDataset
from bench.data.sources.base import Source
from bench.data.trees import damage_named
from bench.data.untrusted import array_of
from bench.data.write import write_rows
from bench.system.errors import UserError
from bench.system.progress import Reporter
from methods.latents import LatentSpec
from methods.rng import derive_seed
from methods.spec import DataSpec

Latents = npt.NDArray[Any]


@dataclass(frozen=True)
class LatentsOf:
    """What latents of a source are: the data set of their images, and what makes these of them."""

    images: Dataset
    decoder: DecoderSource


class LatentDataset(PreparedDataset):
    """Latents to train on; images are compared with those of the data set `images`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.extractors = self.images.extractors
        self.default_samples = self.images.default_samples
        own = None if self.card.decoder == IDENTITY else folder / FOLDER
        self.decoder = DecoderSource(self.card.decoder, own)

    @property
    def images(self) -> Dataset:
        """The data set of the images."""
        return self._images

    @cached_property
    def _images(self) -> Dataset:
        from bench.data.find import find_dataset

        return find_dataset(self.card.images_of)

    @property
    def spec(self) -> DataSpec:
        """The images (C, H, W) and the number of classes."""
        return DataSpec(self.name, self.images.spec.shape, len(self.class_names))

    @property
    def space(self) -> DataSpec:
        """The latents (c, h, w) and the number of classes."""
        return LatentSpec(self.name, self.card.shape, len(self.class_names))

    @property
    def reference(self) -> Split:
        """The reference of the data set of the images."""
        return self.images.reference


def check_latents(source: Source, of: LatentsOf, classes: Sequence[str]) -> None:
    """UserError unless the data set of the images has as many classes."""
    count = of.images.spec.num_classes
    if len(classes) != count:
        raise UserError(
            f"{source.tree.path} has latents of {len(classes)} classes, and the data set "
            f"{of.images.name!r} of their images has {count}.",
            code=2,
        )


def write_latents(
    source: Source, of: LatentsOf, arrangement: Arrangement, folder: Path, name: str,
    reporter: Reporter,
) -> tuple[int, int, int]:  # fmt: skip
    """Write the scaled latents float32 (N, c, h, w) in `folder`; returns the shape of one.

    A file has latents (c, h, w) or their mean and standard deviation (2c, h, w), of which one draw
    is taken, which depends on the index only.
    """
    scaling, channels = of.decoder.scaling(), of.decoder.latent_channels
    scale, shift = (
        np.array(x, np.float32).reshape(-1, 1, 1) for x in (scaling.scale, scaling.shift)
    )

    def drawn(index: int, what: str, found: Latents) -> Latents:
        if found.ndim != 3 or found.dtype.kind != "f" or not np.isfinite(found).all():
            raise UserError(
                f"{what!r} holds {found.dtype} {found.shape}, or values that are not finite: "
                "latents are arrays (c, h, w) of finite fractions."
            )
        raw: Latents = found.astype(np.float32)
        if channels is not None and len(raw) == 2 * channels:
            mean, std = raw[:channels], raw[channels:]
            rng = np.random.Generator(np.random.Philox(key=derive_seed("latents", index)))
            raw = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
        made = of.decoder.image_shape(raw.shape)
        if made != of.images.spec.shape:
            raise UserError(
                f"{what!r} gives images {made}, and the data set {of.images.name!r} has "
                f"{of.images.spec.shape}.",
                code=2,
            )
        return raw * scale + shift

    def latents() -> Iterator[tuple[int, str, Latents]]:
        for index, what, content in source.images():
            assert isinstance(content, bytes)
            with damage_named(source.tree.path, what):
                found = array_of(content, what)
            yield index, what, drawn(index, what, found)

    return write_rows(latents(), source, arrangement, folder, name, reporter)
