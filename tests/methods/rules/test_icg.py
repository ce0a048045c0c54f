"""Independent condition guidance: the drawn conditions and their average."""

import numpy as np
import pytest
import torch

from methods import Guidance, SampleRNG
from methods.oracle import exact_denoised
from methods.rules import CFG, Networks, make_rule
from methods.rules.icg import ICG, ICGKnobs
from tests.methods.rules.references import (
    CLASSES,
    MIXTURE,
    edm_samples,
    exact,
    make_call,
    one_hot,
    tiny_edm,
    trajectory,
)

MANY = 3000


def reference(rule, x, sigma=1.5, **more):
    labels = one_hot(*(i % CLASSES for i in range(len(x))))
    return rule.reference(make_call(exact(), x, sigma, labels, **more))


def test_average_over_draws_equals_the_average_over_classes():
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(MANY, 2)
    got = reference(make_rule("icg"), x).numpy()
    one = x[:1].expand(CLASSES, 2)
    sigma = torch.tensor(1.5, dtype=torch.float64)
    per_class = exact_denoised(one, sigma, one_hot(*range(CLASSES)), MIXTURE).numpy()
    distance = np.abs(got[:, None] - per_class).max(-1)
    drawn = distance.argmin(1)
    assert distance.min(1).max() == 0
    counts = np.bincount(drawn, minlength=CLASSES)
    # The tolerance is five standard deviations of a binomial count.
    assert np.abs(counts - MANY / CLASSES).max() < 5 * np.sqrt(MANY * 2 / 9)
    error = per_class.std(0) / np.sqrt(MANY)
    assert (np.abs(got.mean(0) - per_class.mean(0)) < 5 * error).all()
    # The drawn class is independent of the class of the sample.
    own = np.arange(MANY) % CLASSES
    assert abs((drawn == own).mean() - 1 / CLASSES) < 5 * np.sqrt(2 / 9 / MANY)


def test_average_over_classes_is_the_null_output_in_pure_noise():
    sigma = torch.tensor(1e4, dtype=torch.float64)
    x = sigma * torch.tensor([[0.5, -1.0]], dtype=torch.float64).expand(CLASSES, 2)
    average = exact_denoised(x, sigma, one_hot(*range(CLASSES)), MIXTURE).mean(0)
    null = exact_denoised(x, sigma, torch.zeros(CLASSES, CLASSES), MIXTURE)[0]
    # The posterior of a class still depends on x by means / sigma times x / sigma.
    torch.testing.assert_close(average, null, rtol=0, atol=3e-3)


def test_guided_output_against_the_formula():
    rule, g = make_rule("icg"), 2.5
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = one_hot(0, 1, 2, 0, 1)
    call = make_call(exact(), x, 0.7, labels, rng=SampleRNG(4, range(5)))
    d_cond, d_ref = call.denoise(), rule.reference(call)
    uniform = SampleRNG(4, range(5)).rand((1,)).numpy()[:, 0]
    wrong = one_hot(*np.floor(uniform * CLASSES).astype(int))
    sigma = torch.tensor(0.7, dtype=torch.float64)
    expected = exact_denoised(x, sigma, wrong, MIXTURE).numpy()
    np.testing.assert_array_equal(d_ref.numpy(), expected)
    guided = rule.combine(d_cond, d_ref, g, call).numpy()
    np.testing.assert_allclose(guided, expected + g * (d_cond.numpy() - expected), rtol=1e-12)


def test_noise_has_the_mean_and_standard_deviation_of_a_label():
    rule = ICG(ICGKnobs(source="gaussian"))
    seen = []
    networks = Networks(main=lambda x, sigma, c: (seen.append(c), x)[1])
    rule.reference(make_call(networks, torch.zeros(MANY, 2), 1.0, one_hot(*[0] * MANY)))
    (noise,) = seen
    assert noise.shape == (MANY, CLASSES)
    n = MANY * CLASSES
    assert abs(float(noise.mean()) - 1 / 3) < 5 * np.sqrt(2) / 3 / np.sqrt(n)
    assert abs(float(noise.std()) - np.sqrt(2) / 3) < 5 * np.sqrt(2) / 3 / np.sqrt(2 * n)


@pytest.mark.parametrize("source", ["class", "gaussian"])
def test_oracle_accepts_drawn_labels(source):
    rule = make_rule("icg", {"icg": {"source": source}})
    got = trajectory(exact(), Guidance(3.0, rule), range(12))
    assert torch.isfinite(got).all()
    assert not torch.equal(got, trajectory(exact(), Guidance(3.0), range(12)))


def test_null_source_equals_cfg():
    rule = ICG(ICGKnobs(**ICG.neutral))
    assert (rule.branch(), ICG().branch()) == ("null", "main")
    assert torch.equal(
        trajectory(exact(), Guidance(3.0, rule)), trajectory(exact(), Guidance(3.0, CFG()))
    )


def test_network_without_null_label_is_guided():
    method, nets = tiny_edm("digits", "null_label=false")
    assert method.supports(Guidance(3.0), 3) is not None
    guidance = Guidance(3.0, make_rule("icg"))
    assert method.supports(guidance, 3) is None
    assert method.nfe(guidance, 3) == 10
    plain = edm_samples(method, nets, Guidance(1.0))
    assert not torch.equal(edm_samples(method, nets, guidance), plain)
