"""Metrics with `real_needs` compute their value from these only."""

import dataclasses

import numpy as np
import pytest
import torch

from metrics import METRICS
from metrics.accumulate import NEEDS, Accumulator
from metrics.base import ExactMixture, Moments, SampleSet
from metrics.tilt import at_guidance
from tests.metrics.helpers import Stub, uint8_images, vectors

LESS = sorted(
    name
    for name, metric in METRICS.items()
    if metric.real_needs is not None and not metric.exact_only and not metric.of_sampling
)
EXACT = sorted(name for name, metric in METRICS.items() if metric.exact_only)


def samples(n, seed):
    accumulator = Accumulator({"stub": Stub()}, NEEDS)
    accumulator.update(uint8_images(n, seed=seed), torch.arange(n) % 2)
    return accumulator.finish()


def test_metrics_with_fewer_real_needs_are_listed():
    assert {"fd", "fd_inf", "is_10", "is_5000", "class_accuracy", "saturation"} == set(LESS)
    assert {"w1", "shift", "within3", "w1_tilted", "kl_tilted"} == set(EXACT)
    for name, metric in METRICS.items():
        assert metric.needs_of_real() <= metric.needs, name


@pytest.mark.parametrize("name", LESS)
def test_metrics_compute_from_their_real_needs_only(name):
    metric = METRICS[name]()
    real, fake = samples(50, 0), samples(60, 1)
    # Statistics files may lack the number of samples.
    moments = {key: Moments(0, m.mean, m.cov) for key, m in real.moments.items()}
    held = {"moments": moments} if "moments" in metric.needs_of_real() else {}
    less = dataclasses.replace(SampleSet(n=0, labels=np.zeros(0, np.int64)), **held)
    expected = metric.compute(real=real, fake=fake, extractor="stub")
    found = metric.compute(real=less, fake=fake, extractor="stub")
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.se == (expected.se if expected.se is None else pytest.approx(expected.se))


@pytest.mark.parametrize("name", EXACT)
def test_toy_metrics_need_only_the_density(name):
    metric = METRICS[name]()
    exact = ExactMixture((np.ones((1, 1)), -np.ones((1, 1))), 0.5)
    draws = np.random.default_rng(0).normal(size=(2, 40, 1))
    real, fake = vectors(draws[0]), vectors(draws[1])
    real, fake = dataclasses.replace(real, exact=exact), at_guidance(fake, 2.0)
    less = SampleSet(n=0, labels=np.zeros(0, np.int64), exact=exact)
    assert metric.refuses(real=less, extractor="") is None
    expected = metric.compute(real=real, fake=fake, extractor="")
    assert metric.compute(real=less, fake=fake, extractor="") == expected
