"""The batteries of metrics, extractors and data sets, on built-in ones and on broken ones."""

from functools import cached_property
from typing import ClassVar

import pytest
import torch

from bench.data import DATASETS, Split
from bench.data.digits import Digits
from bench.data.modes import Modes1d
from bench.plugins.conformance import MethodConformance
from bench.plugins.dataset_conformance import DatasetConformance
from bench.plugins.extractor_conformance import ExtractorConformance
from bench.plugins.metric_conformance import MetricConformance
from bench.plugins.rule_conformance import RuleConformance
from methods import Oracle
from methods.rules import CFG
from metrics import METRICS
from metrics.about import About
from metrics.base import Estimate, Extracted, Extractor, Metric
from metrics.extractors import EfficientNetExtractor, IdentityExtractor
from metrics.images import ImageMetric, images
from tests.long import mostly_long


class TestEveryMetric(MetricConformance):
    @pytest.fixture(
        autouse=True,
        params=mostly_long(sorted(METRICS), {"fd", "precision_k3", "saturation", "strength", "w1"}),
    )
    def _choose(self, request):
        self.metric = METRICS[request.param]
        self.extractor = "clip" if request.param == "cmmd" else "random"


class TestEveryDataset(DatasetConformance):
    @pytest.fixture(autouse=True, params=sorted(DATASETS))
    def _choose(self, request):
        self.dataset = DATASETS[request.param]


class TestIdentity(ExtractorConformance):
    shape = (2,)

    @staticmethod
    def extractor(weights, *, download):
        return IdentityExtractor(2)


@pytest.mark.long
class TestEfficientNet(ExtractorConformance):
    @staticmethod
    def extractor(weights, *, download):
        return EfficientNetExtractor()


class Means(Extractor):
    name, summary, dim, hash = "means", "mean colours", 3, "means 1"

    def __init__(self, weights=None, *, download=False):
        pass

    def __call__(self, samples):
        return Extracted(samples.float().mean((2, 3)) / 255, None)


class TestMeans(ExtractorConformance):
    extractor = Means


class Brightness(ImageMetric):
    name, label, summary, direction = "brightness", "Brightness", "difference of means", "lower"
    about = About(low=0.0)

    def compute(self, *, real, fake, extractor):
        return abs(images(real).mean() - images(fake).mean()) / 255


class TestBrightness(MetricConformance):
    metric = Brightness


def fails(battery, test, wanted, **more):
    """Check that a test of a battery fails for a broken plugin, in a sentence with `wanted`."""
    kind = type("Battery", (battery,), more)
    with pytest.raises((AssertionError, TypeError, ValueError)) as failed:
        getattr(kind(), test)()
    assert wanted in str(failed.value)


def metric(compute, **more):
    return type("Broken", (Brightness,), {"compute": compute, **more})


@pytest.mark.parametrize(
    ("broken", "test", "wanted"),
    [
        (metric(lambda self, *, real, fake, extractor: torch.ones(3)),
         "test_value_is_a_finite_number", "it gave a Tensor of shape (3,), not a number"),
        (metric(lambda self, *, real, fake, extractor: float("nan")),
         "test_value_is_a_finite_number", "it gave nan, not a finite number"),
        (metric(lambda self, *, real, fake, extractor: -1.0),
         "test_value_is_within_the_stated_bounds", "-1.0 is not within about, 0.0 to inf"),
        (metric(lambda self, *, real, fake, extractor: float(torch.rand(()))),
         "test_it_draws_only_seeded_numbers", "the global generator was used"),
        (metric(lambda self, *, real, fake, extractor: 1 / (fake.n - 2)),
         "test_smallest_number_of_samples_gives_a_value_or_a_reason", "ZeroDivisionError"),
        (metric(lambda self, *, real, fake, extractor: Estimate(1.0, replicates=(1.0, 2.0))),
         "test_replicates_are_those_of_the_shared_groups", "2 replicates, expected 20"),
        (metric(lambda self, real, fake: 0.0), "test_class_has_every_part_of_a_metric",
         "compute should take (self, *, real, fake, extractor)"),
        (metric(Brightness.compute, supports=lambda self, *, domain, extractor, exact: None),
         "test_it_supports_its_own_data", "supports gives no reason against vector data"),
    ],
)  # fmt: skip
def test_battery_finds_broken_metrics(broken, test, wanted):
    fails(MetricConformance, test, wanted, metric=broken)


class Batchwise(Means):
    def __call__(self, samples):
        found = super().__call__(samples).features
        return Extracted(found - found.mean(0), None)


class Writes(Means):
    def __call__(self, samples):
        samples //= 2
        return super().__call__(samples)


def means(result, **more):
    """An extractor that changes the features of `Means`."""
    call = lambda self, samples: result(Means.__call__(self, samples).features)  # noqa: E731
    return type("Broken", (Means,), {"__call__": call, **more})


@pytest.mark.parametrize(
    ("broken", "test", "wanted"),
    [
        (means(lambda f: f), "test_features_have_the_stated_form",
         "returned a tensor float32 (6, 3), not Extracted(features, logits)"),
        (means(lambda f: Extracted(f.flatten(), None)), "test_features_have_the_stated_form",
         "returned features (18,) for 6 samples, not (6, 3)"),
        (means(lambda f: Extracted(f.double(), None)), "test_features_have_the_stated_form",
         "returned features a tensor float64 (6, 3), not float32 (6, 3)"),
        (means(lambda f: Extracted(f, None), has_logits=True),
         "test_features_have_the_stated_form", "returned no logits, and has_logits is True"),
        (means(lambda f: Extracted(f / 0, None)), "test_features_have_the_stated_form",
         "features are not finite"),
        (means(lambda f: Extracted(f * 0, None)), "test_features_differ_between_samples",
         "two samples have equal features"),
        (means(lambda f: Extracted(f + torch.rand(()), None)), "test_it_draws_no_random_numbers",
         "the global generator was used"),
        (Batchwise, "test_features_depend_only_on_the_sample", "differ by"),
        (Writes, "test_samples_are_unchanged", "expected a copy"),
        (means(lambda f: Extracted(f, None), hash=7), "test_it_has_every_part_of_an_extractor",
         "hash should be a valid string, got 7"),
    ],
)  # fmt: skip
def test_battery_finds_broken_extractors(broken, test, wanted):
    fails(ExtractorConformance, test, wanted, extractor=broken)


class Small(Digits):
    """The digits, 40 of them, with a mistake."""

    mistake: ClassVar = staticmethod(lambda samples, labels: (samples, labels))

    @cached_property
    def _splits(self):
        halves = Digits._splits.func(self)
        return tuple(Split(*self.mistake(h.samples[:40].clone(), h.labels[:40])) for h in halves)

    default_samples = 20


def small(mistake=None, **more):
    changed = {} if mistake is None else {"mistake": staticmethod(mistake)}
    return type("Broken", (Small,), {**changed, **more})


def test_small_digits_are_whole():
    for test in [name for name in dir(DatasetConformance) if name.startswith("test_")]:
        getattr(type("Battery", (DatasetConformance,), {"dataset": Small})(), test)()


@pytest.mark.parametrize(
    ("broken", "test", "wanted"),
    [
        (small(lambda x, y: (x // 255, y)),
         "test_samples_have_the_shape_and_type_of_the_specification", "0 to 1, expected 0 to 255"),
        (small(lambda x, y: (x[:, :, :4], y)),
         "test_samples_have_the_shape_and_type_of_the_specification", "expected (N, *(1, 8, 8))"),
        (small(lambda x, y: (x, y + 1)), "test_labels_are_class_numbers", "each of 0 to 9"),
        (small(lambda x, y: (x, y.int())), "test_labels_are_class_numbers", "expected int64"),
        (small(reference=property(lambda self: self.train)), "test_splits_share_no_sample",
         "40 samples of the reference are in train"),
        (small(lambda x, y: (torch.randint_like(x, 256), y)),
         "test_content_is_the_same_at_every_start", "the global generator was used"),
        (small(default_samples=41), "test_default_samples_can_be_compared", "expected 2 to 40"),
        (small(class_names=("a", "b")), "test_specification_agrees_with_the_names",
         "class_names has 2 names, expected 10"),
        (small(extractors=("classifyer",)), "test_extractors_are_known", "['classifyer']"),
        (small(class_names=["a"]), "test_class_has_every_part_of_a_data_set",
         "class_names should be a valid tuple, got ['a']"),
    ],
)  # fmt: skip
def test_battery_finds_broken_data_sets(broken, test, wanted):
    fails(DatasetConformance, test, wanted, dataset=broken)


class OwnLoop(Oracle):
    """States that it takes rules, and samples with plain CFG."""

    def sample(self, nets, labels, guidance, steps, rng):
        return super().sample(nets, labels, type(guidance)(guidance.scale), steps, rng)


class OutOfRange(Oracle):
    def sample(self, nets, labels, guidance, steps, rng):
        return super().sample(nets, labels, guidance, steps, rng).double()


@pytest.mark.parametrize(
    ("broken", "test", "wanted"),
    [
        (OwnLoop, "test_rule_is_applied_if_the_method_takes_rules",
         "oracle did not apply the rule cfg: it sets takes_rules = True"),
        (OutOfRange, "test_samples_have_the_shape_and_range_of_the_data",
         "samples are torch.float64, expected torch.float32"),
    ],
)  # fmt: skip
def test_battery_finds_broken_methods(broken, test, wanted):
    fails(MethodConformance, test, wanted, method=broken, preset="modes1d")


class Stronger(CFG):
    def scale(self, g, at):
        return g + 1


def test_battery_states_the_neutral_knobs():
    wanted = "with the neutral knobs {} samples differ from those of CFG by"
    fails(RuleConformance, "test_neutral_knobs_are_plain_guidance", wanted, rule=Stronger)


def test_metric_without_image_metric_says_what_to_derive_from():
    class Plain(Metric):
        name, label, summary, direction = "plain", "Plain", "plain", "none"
        needs, domain, uses_extractor = frozenset({"pixels"}), "image", False

        def compute(self, *, real, fake, extractor):
            return images(fake).mean()

    fails(MetricConformance, "test_value_is_a_finite_number", "derive the metric from ImageMetric",
          metric=Plain)  # fmt: skip


def test_modes_have_equal_numbers_by_chance_only():
    class Shared(Modes1d):
        reference = property(lambda self: self.train)

    fails(DatasetConformance, "test_splits_share_no_sample", "expected none", dataset=Shared)
