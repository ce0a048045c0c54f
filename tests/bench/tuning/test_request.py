"""What knobs are chosen by is not what reports measure against."""

from __future__ import annotations

import numpy as np

from bench.data import Split
from bench.data.find import find_dataset
from bench.evaluation.prepare import accumulate, prepare
from bench.tuning.request import TuningReference


def rows(split):
    return {image.numpy().tobytes() for image in split.samples}


def test_tuning_reference_is_disjoint_and_as_large_as_the_reference():
    data = find_dataset("digits")
    side = TuningReference(data)
    assert rows(side.reference) <= rows(data.train)
    assert not rows(side.reference) & rows(data.reference)
    assert len(side.reference) == len(data.reference)
    assert side.reference.hash != data.reference.hash


def test_tuning_reference_takes_a_smaller_training_split_whole():
    data = find_dataset("digits")

    class Small(TuningReference):
        train = Split(data.train.samples[:30], data.train.labels[:30])

    assert len(Small(Small(data)).reference) == 30


def test_tuner_measures_distances_to_training_images(tmp_path):
    data = find_dataset("digits")
    found = {}
    for side in (data, TuningReference(data)):
        evaluation = prepare(side, tmp_path, metrics=("fd",), extractors=("classifier",))
        for split in (data.train, data.reference):
            accumulator = evaluation.accumulator()
            n = len(data.reference)
            accumulate(accumulator, split.samples[:n], split.labels[:n])
            (value,) = evaluation.measure(accumulator.finish(), 1.0).values
            found[evaluation.reference, split is data.train] = value.value
    assert abs(found["digits/train", True]) < 1e-6
    assert abs(found["digits/reference", False]) < 1e-6
    np.testing.assert_allclose(
        found["digits/train", False], found["digits/reference", True], rtol=1e-6
    )
    assert found["digits/train", False] > 1
