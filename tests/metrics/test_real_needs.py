"""Metrics that say they need less of the real set do with that."""

import dataclasses

import numpy as np
import pytest
import torch

from metrics import METRICS
from metrics.accumulate import NEEDS, Accumulator
from metrics.base import Moments, SampleSet
from tests.metrics.helpers import Stub, uint8_images

LESS = sorted(name for name, metric in METRICS.items() if metric.real_needs is not None)


def samples(n, seed):
    accumulator = Accumulator({"stub": Stub()}, NEEDS)
    accumulator.update(uint8_images(n, seed=seed), torch.arange(n) % 2)
    return accumulator.finish()


def test_which_they_are():
    assert {"fd", "fd_inf", "is_10", "is_5000", "class_accuracy", "saturation"} == set(LESS)
    for name, metric in METRICS.items():
        assert metric.needs_of_real() <= metric.needs, name


@pytest.mark.parametrize("name", LESS)
def test_with_what_they_need_alone(name):
    metric = METRICS[name]()
    real, fake = samples(50, 0), samples(60, 1)
    # Statistics files need not even say how many samples they are of.
    moments = {key: Moments(0, m.mean, m.cov) for key, m in real.moments.items()}
    held = {"moments": moments} if "moments" in metric.needs_of_real() else {}
    less = dataclasses.replace(SampleSet(n=0, labels=np.zeros(0, np.int64)), **held)
    expected = metric.compute(real=real, fake=fake, extractor="stub")
    found = metric.compute(real=less, fake=fake, extractor="stub")
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.se == (expected.se if expected.se is None else pytest.approx(expected.se))
