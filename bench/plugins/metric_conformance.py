"""The conformance battery of metrics, for plugins to inherit.

    from bench.metric_conformance import MetricConformance

    class TestMine(MetricConformance):
        metric = Mine

Run it with pytest. The sets are random images or, for metrics of vectors, samples of `modes2d`,
with random features and logits. `n` is their size, if it is at least `minimum_n`; `extractor` is
the name of the features, for a metric that takes only those of one extractor.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.data import DATASETS
from bench.evaluation.passes import pass_for
from bench.evaluation.plan import measure, plan_metric
from bench.evaluation.reference import Reference
from bench.evaluation.sides import split_source
from bench.experiment.rows import Value
from bench.plugins.conformance import untouched_global_rng
from bench.plugins.load import KINDS
from metrics.base import Estimate, ExactMixture, Extracted, Extractor, Metric, SampleSet
from metrics.displacement import with_twins
from metrics.extractors import IdentityExtractor
from metrics.tilt import GuidedSamples, at_guidance

CLASSES = 4


class Random(Extractor):
    """Features and logits by a fixed random projection of images."""

    hash = "random projection 1"
    dim, has_logits, label_logits = 8, True, True

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, C, H, W) => features (B, 8) and logits (B, 4)."""
        flat = samples.flatten(1).float() / 255 - 0.5
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(flat.shape[1], self.dim + CLASSES, generator=generator)
        found = flat @ weights
        return Extracted(found[:, : self.dim].clone(), found[:, self.dim :].clone())


class MetricConformance:
    """Tests of one metric."""

    metric: ClassVar[type[Metric]]
    n: ClassVar[int] = 120
    extractor: ClassVar[str] = "random"

    @property
    def _most(self) -> int:
        return max(self.n, self.metric.minimum_n)

    @property
    def _vectors(self) -> bool:
        return self.metric.domain == "vector" or self.metric.exact_only

    @property
    def _extractor(self) -> Extractor:
        return IdentityExtractor(2) if self._vectors else Random(self.extractor)

    @property
    def _name(self) -> str:
        return self._extractor.name if self.metric.uses_extractor else ""

    def _exact(self) -> ExactMixture | None:
        data = DATASETS["modes2d"]()
        side = split_source("modes2d", data.reference, data)
        return Reference("modes2d", "", side).exact if self._vectors else None

    def _set(self, seed: int, n: int) -> GuidedSamples:
        labels = torch.arange(n) % CLASSES
        generator = torch.Generator().manual_seed(seed)
        if self._vectors:
            data = DATASETS["modes2d"]()
            samples = data.reference.part(seed * n, (seed + 1) * n).samples[:]
        else:
            shape = (n, 3, 8, 8)
            tint = 40 * labels[:, None, None, None]
            samples = (torch.randint(130, shape, generator=generator) + tint).byte()
        found = pass_for({self._extractor.name: self._extractor}, (self.metric(),))
        found.update(samples, labels)
        held = found.finish(self._exact())
        pushes = torch.rand(n, 5, generator=generator, dtype=torch.float64).numpy() + 0.1
        return at_guidance(held, 2.0, metered=np.arange(n), pushes=pushes)

    def _sets(self, n: int) -> tuple[SampleSet, SampleSet]:
        real, fake = self._set(0, n), self._set(1, n)
        return real, with_twins(fake, self._set(2, n)) if fake.features else fake

    def _value(self, n: int) -> Value | None:
        """What a sweep would store; None for a reason against a value."""
        real, fake = self._sets(n)
        planned = plan_metric(
            self.metric(), self._extractor if self.metric.uses_extractor else None, "real"
        )
        if planned.metric.refuses(real=real, extractor=self._name) is not None:
            return None
        found = measure([planned], real, fake, {})
        assert not found.problems, found.problems[0]
        return found.values[0] if found.values else None

    def test_class_has_every_part_of_a_metric(self) -> None:
        """Names, types and arguments are those of `Metric`; the texts are one line."""
        KINDS["metrics"].check(self.metric)
        for text in (self.metric.name, self.metric.label, self.metric.summary):
            assert text, "name, label and summary should not be empty"
            assert "\n" not in text, f"expected one line, got {text!r}"

    def test_it_supports_its_own_data(self) -> None:
        """`supports` gives no reason for them, and one for another kind of data."""
        metric, exact = self.metric(), self._exact()
        extractor = self._extractor if metric.uses_extractor else None
        domain = self._extractor.domain
        reason = metric.supports(domain=domain, extractor=extractor, exact=exact)
        assert reason is None, f"supports says of {domain} data: {reason}"
        if metric.domain != "any":
            other: str | None = "image" if metric.domain == "vector" else "vector"
            reason = metric.supports(domain=other, extractor=extractor, exact=exact)  # type: ignore[arg-type]
            assert reason, f"supports gives no reason against {other} data"

    def test_value_is_a_finite_number(self) -> None:
        """A float or an `Estimate`, whose error is not negative, and whose interval holds it."""
        value = self._value(self._most)
        assert value is not None, f"no value for {self._most} samples"
        assert value.se is None or value.se >= 0, f"the error is {value.se}, expected 0 or more"
        if value.interval is not None:
            low, high = value.interval
            assert low <= value.value <= high, f"{value.value} is not within [{low}, {high}]"

    def test_value_is_within_the_stated_bounds(self) -> None:
        """`about.low` and `about.high` bound it."""
        value, about = self._value(self._most), self.metric.about
        assert value is not None
        low = -math.inf if about.low is None else about.low
        high = math.inf if about.high is None else about.high
        assert low <= value.value <= high, f"{value.value} is not within about, {low} to {high}"

    def test_smallest_number_of_samples_gives_a_value_or_a_reason(self) -> None:
        """With `minimum_n` samples `compute` does not fail; it may raise `Unsuitable`."""
        self._value(self.metric.minimum_n)

    def test_it_draws_only_seeded_numbers(self) -> None:
        """The same sets give the same value; no global generator is used."""
        real, fake = self._sets(self._most)
        before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
        with untouched_global_rng():
            first, again = (
                self.metric().compute(real=real, fake=fake, extractor=self._name) for _ in range(2)
            )
        assert first == again, f"two calls gave {first} and {again}"
        after = np.random.get_state()[1]  # type: ignore[index] # noqa: NPY002
        assert (before == after).all(), "numpy's global generator was used"

    def test_replicates_are_those_of_the_shared_groups(self) -> None:
        """An `Estimate` has none, or one per group of `metrics.errors.jackknife_groups`."""
        real, fake = self._sets(self._most)
        found = self.metric().compute(real=real, fake=fake, extractor=self._name)
        if isinstance(found, Estimate) and found.replicates:
            groups = len(found.replicates)
            assert groups == 20, f"{groups} replicates, expected 20, one without each group"
