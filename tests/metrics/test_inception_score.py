import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from metrics.base import SampleSet
from metrics.errors import jackknife, jackknife_groups
from metrics.inception_score import (
    InceptionScore10,
    InceptionScore5000,
    inception_score,
    ordered_splits,
    shuffled_splits,
)

from .helpers import Stub


def logits(n, classes, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(n, classes))).astype(np.float32)


def groups(n):
    return jackknife_groups(np.zeros(n, int))


def one_hot(labels, classes):
    return np.where(np.eye(classes)[labels] > 0, 200.0, -200.0).astype(np.float32)


def score(values, splits):
    return inception_score(values, splits, groups(len(values))).value


@pytest.mark.parametrize(("n", "splits"), [(200, 10), (203, 10), (100, 1)])
def test_agrees_with_torch_fidelity(n, splits):
    values = logits(n, 30)
    theirs = isc_features_to_metric(torch.from_numpy(values), splits=splits)
    expected = theirs["inception_score_mean"]
    assert score(values, shuffled_splits(n, splits)) == pytest.approx(expected, rel=1e-12)
    theirs = isc_features_to_metric(torch.from_numpy(values), splits=splits, shuffle=False)
    if n % splits == 0:
        ordered = score(values, ordered_splits(n, n // splits))
        assert ordered == pytest.approx(theirs["inception_score_mean"], rel=1e-12)


def test_perfect_images_of_ten_classes_score_ten():
    labels = np.arange(400) % 10
    assert score(one_hot(labels, 10), ordered_splits(400)) == pytest.approx(10.0, rel=1e-12)
    assert score(one_hot(labels * 0, 10), ordered_splits(400)) == pytest.approx(1.0, rel=1e-12)
    assert score(np.zeros((400, 10), np.float32), ordered_splits(400)) == pytest.approx(1.0)


def test_order_matters_only_without_shuffling():
    labels = np.sort(np.arange(1000) % 10)
    assert score(one_hot(labels, 10), ordered_splits(1000, 100)) == pytest.approx(1.0)
    assert score(one_hot(labels, 10), shuffled_splits(1000)) > 9


def test_small_splits_are_biased_as_known():
    # Perfect, random labels: C exp(-(C - 1) / (2 n)) to first order.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, size=4000)
    expected = 20 * np.exp(-19 / (2 * 400))
    assert score(one_hot(labels, 20), ordered_splits(4000, 400)) == pytest.approx(
        expected, rel=0.005
    )


@pytest.mark.parametrize("n", [40, 203])
def test_replicates_leave_out_members_of_their_group(n):
    values, dealt = logits(n, 12), groups(n)
    splits = shuffled_splits(n)
    found = inception_score(values, splits, dealt)
    for group in range(20):
        left = [split[dealt[split] != group] for split in splits]
        assert found.replicates[group] == pytest.approx(score(values, left), rel=1e-12)


def test_error_is_the_sampling_deviation():
    found = [
        inception_score(logits(400, 10, seed), ordered_splits(400), groups(400))
        for seed in range(100)
    ]
    # A deviation of 100 draws has an error of 7%.
    spread = np.std([f.value for f in found])
    errors = [jackknife(f.replicates, f.value).se for f in found]
    assert np.mean(errors) == pytest.approx(spread, rel=0.2)


def test_metrics():
    n = 60
    values = logits(n, 10)
    fake = SampleSet(n, np.zeros(n, np.int64), logits={"c": values})
    real = SampleSet(0, np.empty(0, np.int64))
    ten = InceptionScore10().compute(real=real, fake=fake, extractor="c")
    assert ten.value == score(values, shuffled_splits(n))
    assert len(ten.replicates) == 20
    assert ten.se > 0
    whole = InceptionScore5000().compute(real=real, fake=fake, extractor="c")
    assert whole.value == score(values, [np.arange(n)])
    stub = Stub()
    stub.has_logits = False
    reason = InceptionScore10().supports(domain="image", extractor=stub, exact=None)
    assert reason == "extractor stub gives no logits, which is_10 needs"


def test_refusals():
    values = logits(30, 3)
    with pytest.raises(ValueError, match="too small"):
        inception_score(values, [np.array([0])], groups(30))
    values[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite logits"):
        inception_score(values, [np.arange(30)], groups(30))
