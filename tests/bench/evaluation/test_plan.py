import dataclasses
import math
import textwrap

import numpy as np
import pytest
import torch

from bench.evaluation import plan as measuring
from bench.evaluation.plan import Measurement, Plan, measure, plan_metric
from bench.experiment import identity
from bench.experiment.rows import Value
from bench.plugins.load import load_plugins
from metrics import METRICS, Accumulator
from metrics.base import Estimate, Metric, SampleSet
from metrics.extractors import IdentityExtractor


def plan(*names):
    return [plan_metric(METRICS[n](), IdentityExtractor(2), "r") for n in names]


def fitting_plan(measurements, real):
    found = Plan(tuple(measurements), (), {}).fitting(lambda metric: real)
    return found.measurements, {lacking.key: lacking.reason for lacking in found.unmeasured}


def vectors(seed, n=60):
    accumulator = Accumulator({"identity": IdentityExtractor(2)}, {"moments", "features"})
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    accumulator.update(x, torch.arange(n) % 2)
    return accumulator.finish()


def images(channels):
    accumulator = Accumulator({}, {"pixels"})
    x = torch.randint(256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(channels))
    accumulator.update(x.expand(-1, channels, -1, -1).byte(), torch.arange(6))
    return accumulator.finish()


class Stub(Metric):
    name, label, summary, direction = "stub", "Stub", "a given estimate", "lower"
    found: Estimate | float = 0.0

    def compute(self, *, real, fake, extractor):
        return self.found


def stubbed(found):
    stub = Stub()
    stub.found = found
    sides = SampleSet(n=5, labels=np.zeros(5, np.int64))
    return measure([Measurement(stub, "", "", "s")], sides, sides, {})


def test_errors_and_replicates_reach_the_value():
    real, fake = vectors(0), vectors(1)
    (value,) = measure(plan("fd"), real, fake, {}).values
    found = METRICS["fd"]().compute(real=real, fake=fake, extractor="identity")
    assert (value.value, value.se, value.se_method) == (found.value, found.se, found.se_method)
    assert value.about == METRICS["fd"].about
    assert len(value.replicates) == 20
    np.testing.assert_allclose(value.replicates, found.replicates, rtol=1e-9)
    low, high = value.interval
    assert (low + high) / 2 == pytest.approx(value.value)
    assert high - low == pytest.approx(2 * 1.96 * value.se, rel=1e-4)


@pytest.mark.parametrize(
    "found",
    [
        Estimate(1.0, math.nan, "x"),
        Estimate(1.0, 0.1, "x", replicates=(1.0, math.inf)),
        Estimate(1.0, 0.1, "x", -math.inf, 2.0),
        Estimate(1.0, -0.1, "x"),
        1.0,
    ],
)
def test_non_finite_error_is_dropped_and_the_value_kept(found):
    (value,) = stubbed(found).values
    assert value.value == 1.0
    assert (value.se, value.se_method, value.replicates, value.interval) == (None, "", (), None)
    assert Value.model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize("bad", [math.nan, Estimate(math.inf, 0.1, "x")])
def test_non_finite_value_is_a_problem(bad):
    found = stubbed(bad)
    assert found.values == ()
    (problem,) = found.problems
    assert problem.startswith("metric stub failed: ValueError: it gave ")


def test_too_few_samples_are_a_reason():
    found = measure(plan("fd_inf", "fd"), vectors(0), vectors(1, n=10), {"a": "b"})
    assert [v.metric for v in found.values] == ["fd"]
    assert found.unmeasured == {"a": "b", "fd_inf identity": "fd_inf needs 20 samples"}


def test_reference_of_only_moments_suits_only_the_distance():
    moments = dataclasses.replace(vectors(0), features={})
    fitting, reasons = fitting_plan(plan("fd", "fd_corrected", "precision_k3"), moments)
    assert [p.metric.name for p in fitting] == ["fd"]
    assert set(reasons) == {"fd_corrected identity", "precision_k3 identity"}
    assert reasons["fd_corrected identity"] == (
        "fd_corrected needs the features of real samples by extractor identity, which the "
        "reference lacks"
    )
    (value,) = measure(fitting, moments, vectors(1), reasons).values
    assert value.se > 0


def test_grey_images_have_no_colour_to_compare_with():
    grey = images(3)
    every = [plan_metric(METRICS[n](), None, "r") for n in ("chroma_ratio", "contrast_ratio")]
    fitting, reasons = fitting_plan(every, grey)
    assert [p.metric.name for p in fitting] == ["contrast_ratio"]
    assert reasons == {
        "chroma_ratio": "chroma_ratio needs real images with colour, and these have none"
    }


@pytest.mark.parametrize(
    "module", ["metrics.frechet", "metrics.accumulate", "metrics.extractors.identity"]
)
def test_signature_covers_code_of_metric_accumulator_and_extractor(monkeypatch, module):
    def signature():
        return plan("fd")[0].signature

    def edited(name):
        found = parsed(name)
        return (
            dataclasses.replace(found, digest=found.digest + " edited") if name == module else found
        )

    parsed = identity._parsed
    monkeypatch.setattr(measuring, "code_hash", identity.code_hash.__wrapped__)
    before = signature()
    monkeypatch.setattr(identity, "_parsed", edited)
    assert signature() != before


DESCRIBED = """
    from metrics.about import About
    from metrics.base import Metric
    from metrics.registry import register

    @register
    class Spread(Metric):
        name = "spread"
        label = "Spread"
        summary = "how far apart samples are"
        direction = "higher"
        about = About(order=3, low=0.0)

        def compute(self, *, real, fake, extractor):
            return 1.0
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("order=3, low=0.0", 'order=0, standing="headline", scale="log", low=0.0', True),
        ('label = "Spread"', 'label = "Spread of samples"', True),
        ('summary = "how far', 'summary = "how very far', True),
        ('direction = "higher"', 'direction = "lower"', False),
        ("return 1.0", "return 2.0", False),
    ],
)
def test_signature_ignores_the_description_of_a_metric(tmp_path, old, new, same):
    found = []
    for folder, text in (("a", DESCRIBED), ("b", DESCRIBED.replace(old, new))):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / f"spread_{folder}.py"
        file.write_text(textwrap.dedent(text))
        assert load_plugins([file]) == []
        found.append(plan_metric(METRICS.pop("spread")(), None, "r").signature)
    assert (found[0] == found[1]) == same
