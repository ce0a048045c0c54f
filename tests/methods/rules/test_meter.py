"""The meter of strength against a few lines of numpy, controls, and what it must not change."""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from methods import Guidance, SampleRNG
from methods.rules import CFG, Networks, make_rule
from methods.rules.record import Record
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from metrics.base import SampleSet
from metrics.strength import Across, Dose, Duration, Strength
from metrics.tilt import at_guidance
from tests.methods.rules.calls import oracle
from tests.methods.rules.references import one_hot, tiny_edm
from tests.methods.rules.toy import denoised, networks, start

METRICS = (Strength, Duration, Dose, Across)


def metered(rule, g=7.0, n=400, batch=400, steps=18):
    """Strength, duration, dose and share across of the closed-form denoiser of modes2d."""
    record, method = Record(metered=True), oracle()
    for first in range(0, n, batch):
        indices = range(first, min(first + batch, n))
        labels, rng = one_hot(*(i % 4 for i in indices), of=4), SampleRNG(0, indices)
        method.sample(nn.Module(), labels, Guidance(g, rule, record), steps, rng)
    return values(record, n, g), record


def values(record, n, g=7.0, classes=4):
    indices, pushes = record.sums()
    plain = SampleSet(n=n, labels=np.arange(n) % classes)
    fake = at_guidance(plain, g, metered=indices, pushes=pushes)
    return {m.name: m().compute(real=plain, fake=fake, extractor="") for m in METRICS}


class _Replaced(CFG):
    """CFG with 7 replaced by 4."""

    def scale(self, g, at):
        return 4.0 if g == 7 else g


class _Nothing(CFG):
    def combine(self, d_cond, d_ref, g, call):
        return d_cond


@pytest.mark.parametrize("g", [0.5, 1.5, 4.0, 7.0, 15.0, -2.0])
def test_strength_of_cfg_is_g(g):
    found, record = metered(CFG(), g, n=40)
    assert found["strength"].value == pytest.approx(g, abs=1e-6)
    assert found["dose"].value == pytest.approx(g, abs=1e-6)
    assert found["duration"].value == pytest.approx(1.0, abs=1e-12)
    assert found["across"].value < 1e-6
    assert found["strength"].se < 1e-6
    assert record.evaluations() == {"main": 35.0, "null": 35.0}


@pytest.mark.parametrize(
    ("rule", "strength", "duration"), [(_Replaced(), 4.0, 1.0), (_Nothing(), 1.0, 0.0)]
)
def test_controls(rule, strength, duration):
    found, _ = metered(rule, n=40)
    assert found["strength"].value == pytest.approx(strength, abs=1e-6)
    assert found["duration"].value == pytest.approx(duration, abs=1e-9)
    assert found["dose"].value == pytest.approx(1 + (strength - 1) * duration, abs=1e-6)


@pytest.mark.parametrize("rule", ["cfg", "autoguidance", "interval"])
def test_off_is_strength_1_without_further_evaluations(rule):
    found, record = metered(make_rule(rule), 1.0, n=12)
    assert {name: e.value for name, e in found.items()} == {
        "strength": 1.0, "duration": 0.0, "dose": 1.0, "across": 0.0
    }  # fmt: skip
    assert all(e.se < 1e-12 for e in found.values())
    assert record.evaluations() == {"main": 35.0}


@pytest.mark.parametrize(
    ("name", "strength", "across"),
    [
        ("cfg", 7.00, 0.0),
        ("cads", 7.00, 0.0),
        ("tcfg", 6.92, None),
        ("monotone", 3.25, 0.0),
        ("cfg-zero", 2.95, None),
        ("fbg", 1.22, 0.0),
        ("autoguidance", 1.02, None),
        ("tsg", 1.01, None),
        ("apg", 1.00, None),
        ("interval", 7.00, 0.0),
    ],
)
def test_strength_at_scale_7_on_modes2d(name, strength, across):
    """The values of an independent program, rounded to its two decimals, with our error."""
    found, record = metered(make_rule(name))
    error = 4 * found["strength"].se + 0.006
    assert found["strength"].value == pytest.approx(strength, abs=error)
    assert across is None or found["across"].value < 1e-6
    if name == "interval":
        assert record.evaluations() == {"main": 35.0, "null": 8.0}


def numpy_sums(rule_g, sigmas, x, classes):
    """Heun's method with CFG at rule_g(step) and the sums of the definition, in numpy."""
    sums, acts, none = np.zeros((len(x), 5)), 0, -np.ones(len(x))
    for k, (s, e) in enumerate(pairwise(sigmas)):
        slopes, here, level = [], x, s
        for _ in range(1 if e == 0 else 2):
            d_c, d_u = denoised(here, level, classes), denoised(here, level, none)
            d_g = d_u + rule_g(k) * (d_c - d_u)
            push, update = d_g - d_c, d_c - d_u
            acts = np.linalg.norm(push, axis=1) > 1e-6 * np.linalg.norm(d_c, axis=1)
            along, size = (push * update).sum(1), (update**2).sum(1)
            sums[:, 0] += acts * along
            sums[:, 1] += acts * size
            sums[:, 2] += acts * (push**2).sum(1)
            sums[:, 3] += acts * along**2 / np.maximum(size, 1e-300)
            sums[:, 4] += size
            slopes.append((here - d_g) / level)
            here, level = x + (e - s) * slopes[0], e
        x = x + (e - s) * np.mean(slopes, axis=0)
    return x, sums


def test_sums_equal_a_numpy_trajectory():
    x, sigmas, labels, rng = start(n=30)
    rule, record = make_rule("interval", {"interval": {"steps": (3, 6)}}), Record(metered=True)
    samples = sample_guided(networks(), x, sigmas, labels, Guidance(4.0, rule, record), rng)
    end, expected = numpy_sums(
        lambda k: 4.0 if 3 <= k <= 6 else 1.0, sigmas.numpy(), x.numpy(), labels.argmax(1).numpy()
    )
    np.testing.assert_allclose(samples.numpy(), end, rtol=1e-9, atol=1e-9)
    indices, sums = record.sums()
    assert indices.tolist() == list(range(30))
    np.testing.assert_allclose(sums, expected, rtol=1e-7, atol=1e-12)
    # Without a group at a time: the jackknife of the ratio of sums.
    found = values(record, 30, classes=2)["duration"]
    whole = expected.sum(0)
    assert found.value == pytest.approx(whole[1] / whole[4])
    assert len(found.replicates) == 20
    assert found.se == pytest.approx(
        np.sqrt(19 / 20 * ((np.array(found.replicates) - np.mean(found.replicates)) ** 2).sum()),
        rel=0.1,  # groups of one and of two samples
    )


@pytest.mark.parametrize("name", ["apg", "icg", "interval", "cfgpp", "autoguidance+interval"])
def test_values_depend_on_the_batch_by_rounding_only(name):
    one, _ = metered(make_rule(name), n=100, batch=100, steps=6)
    many, record = metered(make_rule(name), n=100, batch=7, steps=6)
    for metric, estimate in one.items():
        assert many[metric].value == pytest.approx(estimate.value, rel=1e-9, abs=1e-12)
        assert many[metric].se == pytest.approx(estimate.se, rel=1e-6, abs=1e-9)
    own_null = name in ("apg", "cfgpp")
    assert len(record.sums()[0]) == (100 if own_null else 64)


@pytest.mark.parametrize("name", ["cfg", "icg", "cfgpp", "interval", "fbg+interval", "pag"])
def test_meter_changes_neither_samples_nor_evaluations(name):
    method, nets = tiny_edm()
    found = []
    for record in (Record(), Record(metered=True)):
        with torch.inference_mode():
            labels, rng = torch.eye(10)[:4], SampleRNG(1, range(4))
            guidance = Guidance(3.0, make_rule(name), record)
            found.append((method.sample(nets, labels, guidance, 3, rng), record.evaluations()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert record.watch.seconds > 0


def test_strength_of_a_step_is_that_of_the_output_which_makes_it():
    """A step of CFG++ is an Euler step of CFG at lam / (1 - end / start)."""
    x, sigmas, labels, rng = start(n=8, steps=1)
    sigmas = torch.tensor([20.0, 5.0]).double()
    record = Record(metered=True)
    rule = make_rule("cfgpp", {"cfgpp": {"ratio": 10.0}})
    sample_guided(networks(), x, sigmas, labels, Guidance(6.0, rule, record), rng)
    assert values(record, 8)["strength"].value == pytest.approx(0.6 / (1 - 5 / 20), rel=1e-9)


def test_particles_are_metered_for_their_sample():
    class Several(CFG):
        particles: ClassVar[int] = 3

    x, sigmas, labels, rng = start(n=5)
    record = Record(metered=True)
    sample_guided(networks(), x, sigmas, labels, Guidance(4.0, Several(), record), rng)
    assert len(record.sums()[0]) == 5
    assert values(record, 5)["strength"].value == pytest.approx(4.0, abs=1e-9)
    assert record.evaluations() == {"main": 51.0, "null": 51.0}


def test_model_without_unconditional_branch_is_not_metered():
    record = Record(metered=True)
    nets = Networks(main=lambda x, s, c: x / 2, weak=lambda x, s, c: x / 3)
    x, sigmas = torch.ones(2, 3), karras_sigmas(2)
    guidance = Guidance(2.0, make_rule("autoguidance"), record)
    sample_guided(nets, x, sigmas, torch.eye(2), guidance, SampleRNG(0, range(2)))
    assert record.unmetered == "the model has no unconditional branch"
    assert len(record.sums()[0]) == 0
