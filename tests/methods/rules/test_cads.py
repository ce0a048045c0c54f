"""Annealed labels: the schedule, the statistics of labels, and CFG without annealing."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from methods import Guidance, SampleRNG
from methods.oracle import exact_denoised
from methods.rules import CFG, make_rule
from methods.rules.cads import CADS, CADSKnobs, anneal
from tests.methods.rules.references import (
    CLASSES,
    MIXTURE,
    exact,
    make_call,
    one_hot,
    trajectory,
)


@pytest.mark.parametrize(
    ("time", "gamma"), [(0.1, 1), (0.6, 1), (0.675, 0.75), (0.75, 0.5), (0.9, 0), (1, 0)]
)
def test_gamma_is_linear_between_its_ends(time, gamma):
    assert make_rule("cads").gamma(time) == pytest.approx(gamma)


def test_gamma_with_equal_ends_is_a_step():
    rule = CADS(CADSKnobs(tau1=0.5, tau2=0.5))
    assert (rule.gamma(0.5), rule.gamma(0.51)) == (1, 0)
    with pytest.raises(ValidationError, match="tau1 must not exceed tau2"):
        CADSKnobs(tau1=0.7, tau2=0.6)


@pytest.mark.parametrize("psi", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_annealed_labels_against_the_paper(gamma, psi):
    labels = one_hot(0, 3, 7, of=10).double()
    noise = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = anneal(labels, noise, gamma, 0.25, psi).numpy()
    c, n = labels.numpy(), noise.numpy()
    for row in range(3):
        c_hat = np.sqrt(gamma) * c[row] + 0.25 * np.sqrt(1 - gamma) * n[row]
        scaled = (c_hat - c_hat.mean()) / c_hat.std() * c[row].std() + c[row].mean()
        np.testing.assert_allclose(got[row], psi * scaled + (1 - psi) * c_hat, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_rescaled_labels_keep_mean_and_deviation(gamma):
    labels = one_hot(1, 2, of=10)
    noise = SampleRNG(0, range(2)).randn((10,))
    got = anneal(labels, noise, gamma, 0.25, 1.0)
    # float32 sums of ten values of order 1.
    torch.testing.assert_close(got.mean(1), labels.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(got.std(1), labels.std(1), rtol=1e-5, atol=0)


def test_without_noise_labels_fade_to_null():
    labels = one_hot(1, 2, of=10)
    assert torch.equal(anneal(labels, torch.ones(2, 10), 0.0, 0.0, 1.0), torch.zeros(2, 10))


def test_late_labels_are_unchanged_without_random_draws():
    labels = one_hot(0, 1)
    call = make_call(exact(), torch.zeros(2, 2), 1.0, labels, step=3, steps=5)
    assert make_rule("cads").condition(labels, call) is labels
    assert call.state == {}
    early = make_call(exact(), torch.zeros(2, 2), 1.0, labels, step=0, steps=5)
    assert not torch.equal(make_rule("cads").condition(labels, early), labels)


def test_equals_cfg_without_annealing():
    neutral = Guidance(3.0, CADS(CADSKnobs(**CADS.neutral)))
    plain = trajectory(exact(), Guidance(3.0, CFG()))
    assert torch.equal(trajectory(exact(), neutral), plain)
    annealed = trajectory(exact(), Guidance(3.0, make_rule("cads")))
    assert torch.isfinite(annealed).all()
    assert not torch.equal(annealed, plain)


def test_exact_denoiser_uses_labels_as_class_weights():
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(1.3, dtype=torch.float64)
    labels = torch.tensor([[0.2, 0, 0.6], [-0.3, 2, -1], [-1, -2, -0.1], [0, 0, 0]]).double()
    got = exact_denoised(x, sigma, labels, MIXTURE).numpy()
    variance = MIXTURE.std**2 + 1.3**2
    for row, weights in enumerate([labels[0].numpy(), (0, 2, 0), (1, 1, 1), (1, 1, 1)]):
        total, value = 0.0, np.zeros(2)
        for k in range(CLASSES):
            for mean in np.array(MIXTURE.means[k]):
                offset = x[row].numpy() - mean
                mass = weights[k] / len(MIXTURE.means[k])
                mass *= np.exp(-(offset**2).sum() / (2 * variance))
                total += mass
                value += mass * (mean + MIXTURE.std**2 / variance * offset)
        np.testing.assert_allclose(got[row], value / total, rtol=1e-12)


def test_exact_denoiser_ignores_the_scale_of_class_weights():
    x = torch.zeros(3, 2, dtype=torch.float64)
    sigma, labels = torch.tensor(0.9), torch.tensor([[0.2, 0.3, 0.5]]).expand(3, 3)
    one = exact_denoised(x, sigma, labels, MIXTURE)
    torch.testing.assert_close(
        exact_denoised(x, sigma, 7 * labels, MIXTURE), one, rtol=1e-6, atol=0
    )
