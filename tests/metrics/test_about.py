import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metrics import METRICS
from metrics.about import About
from metrics.accumulate import NEEDS, Accumulator
from metrics.base import ExactMixture, Metric
from metrics.registry import register
from metrics.tilt import at_guidance
from tests.metrics.helpers import Stub, uint8_images, vectors

# The order in tables, repeated here as the expected one; metrics without an order go by name.
ORDER = (
    *("fd", "fd_corrected", "kid", "precision_k3", "precision_k5_strict", "recall_k3"),
    *("recall_k5_strict", "density_k3", "density_k5_strict", "coverage_k3", "coverage_k5_strict"),
    *("class_accuracy", "w1", "w1_tilted", "within3", "shift", "fd_inf", "class_fd"),
    *("kid_subsets", "saturation", "contrast_ratio", "chroma_ratio", "strength", "duration"),
    *("dose", "across", "authenticity", "cmmd"),
    *("is_10", "is_5000", "kl_tilted", "mind", "nearest_ratio"),
)
HEADLINES = {*ORDER[:13], "within3"}
SHOWN = {"w1_tilted", "shift", "saturation", "contrast_ratio", "chroma_ratio", "strength"}


def ours(**facts):
    """Names of built-in metrics with such facts."""
    found = {n: METRICS[n].about for n in ORDER}
    return {n for n, a in found.items() if all(getattr(a, k) == v for k, v in facts.items())}


def test_built_in_metrics_state_the_facts_that_reports_need():
    assert tuple(sorted(ORDER, key=lambda n: (METRICS[n].about.order, n))) == ORDER
    assert ours(standing="headline") == HEADLINES
    assert ours(standing="shown") == SHOWN
    assert ours(ratios=True) == {"fd", "class_fd", "w1", "mind"}
    assert ours(plug_in=True) == {"fd", "class_fd"}
    assert ours(minimum=True) == {"fd", "fd_corrected", "fd_inf", "class_fd"}
    assert ours(error_of="both") == {"fd_corrected"}
    assert ours(error_of="real") == {n for n in ORDER if n.startswith(("recall", "coverage"))}
    assert ours(error_of="generated") == {
        *("class_accuracy", "w1", "w1_tilted", "kl_tilted", "within3", "shift", "saturation"),
        *("is_10", "is_5000", "strength", "duration", "dose", "across"),
    }
    assert ours(scale="auto") == set(ORDER)
    assert METRICS["precision_k5_strict"].about.against == "recall_k5_strict"
    assert max(ORDER, key=lambda n: METRICS[n].about.lead) == "w1"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"low": 1.0, "high": 0.0}, "low is 1.0, which is not below high, 0.0"),
        ({"scale": "log"}, "scale='log' needs low=0 or more, got low=None"),
        ({"ratios": True, "low": -1.0}, "ratios=True needs low=0 or more, got low=-1.0"),
        ({"standing": "first"}, "'headline', 'shown' or 'listed'"),
        ({"headline": True}, "headline"),
        ({"order": -1}, "greater than or equal to 0"),
    ],
)
def test_contradicting_facts_are_refused_at_definition(facts, message):
    with pytest.raises(ValidationError, match=message):
        About(**facts)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"direction": "down"}, "direction is 'down', not one of lower, higher, none"),
        ({"about": {"order": 1}}, r"not an About\(\.\.\.\) of metrics\.about"),
        ({"direction": "none", "about": About(standing="headline")}, "needs a direction"),
        ({"direction": "none", "about": About(lead=1)}, "needs a direction"),
        ({"about": About(against="recall_k3")}, "requires direction 'higher'"),
    ],
)
def test_metric_with_contradicting_facts_is_not_registered(attributes, message):
    body = {
        **{"name": "wrong", "label": "Wrong", "summary": "a wrong metric", "direction": "lower"},
        **{"compute": lambda self, *, real, fake, extractor: 0.0},
        **attributes,
    }
    with pytest.raises(TypeError, match=message):
        register(type("Wrong", (Metric,), body))
    assert "wrong" not in METRICS


def image_sets():
    for seed in (0, 1):
        accumulator = Accumulator({"stub": Stub()}, NEEDS)
        # Small images in colour, so that no ratio divides by 0.
        accumulator.update(uint8_images(60, (3, 4, 4), seed), torch.arange(60) % 2)
        samples = accumulator.finish()
        pushes = np.random.default_rng(seed).random((60, 5)) * [1.0, 1.0, 1.0, 0.5, 2.0]
        yield at_guidance(samples, 2.0, metered=np.arange(60), pushes=pushes)


def toy_sets():
    exact = ExactMixture((np.ones((1, 1)), -np.ones((1, 1))), 0.5)
    for draws in np.random.default_rng(0).normal(size=(2, 40, 1)):
        yield at_guidance(dataclasses.replace(vectors(draws), exact=exact), 2.0)


@pytest.mark.parametrize("name", sorted(set(ORDER) - {"kid_subsets"}))  # which needs 1000 samples
def test_values_lie_in_the_stated_range(name):
    metric = METRICS[name]()
    real, fake = toy_sets() if metric.exact_only else image_sets()
    extractor = "stub" if metric.uses_extractor else ""
    value = metric.compute(real=real, fake=fake, extractor=extractor).value
    low, high = metric.about.low, metric.about.high
    assert low is None or low <= value
    assert high is None or value <= high
    assert not metric.about.ratios or value > 0
