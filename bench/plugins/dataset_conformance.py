"""The conformance battery of data sets, for plugins to inherit.

    from bench.dataset_conformance import DatasetConformance

    class TestMine(DatasetConformance):
        dataset = Mine

Run it with pytest. It reads both splits as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from bench.data import Dataset, Split
from bench.plugins.conformance import untouched_global_rng
from bench.plugins.load import KINDS
from bench.system.entries import check_object
from metrics import EXTRACTORS


class DatasetConformance:
    """Tests of one data set."""

    dataset: ClassVar[type[Dataset]]

    def _splits(self) -> Iterator[tuple[str, Split]]:
        data = self.dataset()
        yield from (("train", data.train), ("reference", data.reference))

    def test_class_has_every_part_of_a_data_set(self) -> None:
        """Names, types and arguments are those of `Dataset`."""
        KINDS["datasets"].check(self.dataset)
        check_object("data set", self.dataset(), Dataset)

    def test_specification_agrees_with_the_names(self) -> None:
        """`spec` has the name of the data set, its classes, and a shape (C, H, W) or (D,)."""
        data = self.dataset()
        spec, names = data.spec, data.class_names
        assert spec.name == data.name, f"spec.name is {spec.name!r}, expected {data.name!r}"
        assert len(names) == spec.num_classes, (
            f"class_names has {len(names)} names, expected {spec.num_classes}, as in spec"
        )
        assert len(spec.shape) in (1, 3), f"the shape is {spec.shape}, expected (C, H, W) or (D,)"
        if spec.is_image:
            assert spec.shape[0] in (1, 3), f"{spec.shape[0]} channels, expected 1 or 3"

    def test_samples_have_the_shape_and_type_of_the_specification(self) -> None:
        """Images uint8 (N, C, H, W), 0 to 255; vectors finite float32 (N, D)."""
        spec = self.dataset().spec
        wanted = torch.uint8 if spec.is_image else torch.float32
        for name, split in self._splits():
            found = split.samples[:]
            assert tuple(found.shape[1:]) == spec.shape, (
                f"{name} has samples {tuple(found.shape)}, expected (N, *{spec.shape})"
            )
            assert found.dtype == wanted, f"{name} is {found.dtype}, expected {wanted}"
            if spec.is_image:
                top = int(found.max())
                assert top > 1, f"{name} has values 0 to {top}, expected 0 to 255"
            else:
                assert torch.isfinite(found).all(), f"{name} has NaN or infinity"

    def test_labels_are_class_numbers(self) -> None:
        """Int64 (N,), from 0 to num_classes - 1; every class is in both splits."""
        count = self.dataset().spec.num_classes
        for name, split in self._splits():
            labels = split.labels
            got = f"labels of {name} are {labels.dtype} {tuple(labels.shape)}"
            assert labels.dtype == torch.int64, f"{got}, expected int64"
            assert labels.shape == (len(split),), f"{got}, expected ({len(split)},)"
            found = sorted(set(labels.tolist()))
            assert found == list(range(count)), (
                f"{name} has the classes {found}, expected each of 0 to {count - 1}"
            )

    def test_splits_share_no_sample(self) -> None:
        """A sample of the reference that was trained on would favour memorisation."""
        (_, train), (_, reference) = self._splits()
        seen = {row.numpy().tobytes() for row in train.samples[:]}
        both = sum(row.numpy().tobytes() in seen for row in reference.samples[:])
        # Numbers on a line may be equal by chance.
        most = 0 if self.dataset().spec.is_image else len(reference) // 100
        assert both <= most, f"{both} samples of the reference are in train, expected none"

    def test_content_is_the_same_at_every_start(self) -> None:
        """Runs and rows are found by its hash; the global generators are not used."""
        first = [split.hash for _, split in self._splits()]
        with untouched_global_rng():
            again = [split.hash for _, split in self._splits()]
        assert first == again, "its content differs between two instances: fix the seed"

    def test_default_samples_can_be_compared(self) -> None:
        """At least two, and no more than the training samples that are their yardstick."""
        data = self.dataset()
        n, most = data.default_samples, len(data.train)
        assert 2 <= n <= most, f"default_samples is {n}, expected 2 to {most}"

    def test_extractors_are_known(self) -> None:
        """`extractors` names registered ones, such as "classifier", or "identity" for vectors."""
        data = self.dataset()
        unknown = [name for name in data.extractors if name not in EXTRACTORS]
        assert not unknown, f"unknown extractors {unknown}, expected some of {sorted(EXTRACTORS)}"
        vectors = "identity" in data.extractors
        assert not (data.spec.is_image and vectors), "identity is for vectors, and these are images"
