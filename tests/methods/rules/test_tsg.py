"""Time-step guidance: the perturbed noise level of the reference."""

import numpy as np
import pytest
import torch

from methods import Guidance, SampleRNG
from methods.oracle import exact_denoised
from methods.rules import CFG, Networks, make_rule
from methods.rules.tsg import TSG, TSGKnobs
from tests.methods.rules import toy
from tests.methods.rules.references import (
    MIXTURE,
    edm_samples,
    exact,
    make_call,
    one_hot,
    tiny_edm,
    trajectory,
)


def factors(seed, count, scale, time, alpha):
    noise = SampleRNG(seed, range(count)).randn((1,)).numpy()[:, 0].astype(np.float64)
    return np.exp(scale * time**alpha * noise)


def test_closed_form_is_evaluated_at_the_perturbed_level():
    rule = TSG(TSGKnobs(scale=0.8, alpha=2.0))
    x = torch.tensor([[0.3, -0.4], [1.0, 2.0], [0.0, 0.5]], dtype=torch.float64)
    labels = one_hot(0, 1, 2)
    call = make_call(exact(), x, 1.2, labels, step=1, steps=4, rng=SampleRNG(5, range(3)))
    told = torch.from_numpy(1.2 * factors(5, 3, 0.8, 0.75, 2.0))
    expected = exact_denoised(x, told, labels, MIXTURE)
    torch.testing.assert_close(rule.reference(call), expected, rtol=1e-12, atol=0)


def test_trajectory_against_numpy():
    """One factor per sample and step, which both stages of a Heun step share."""
    _, sigmas, labels, rng = toy.start()
    label, steps = labels.argmax(1).numpy(), len(sigmas) - 1
    noise = [rng.randn(()).double().numpy() for _ in range(steps)]

    def guide(x, d_c, d_u, s, step, stage):
        told = s * np.exp(0.4 * (1 - step / steps) * noise[step])
        rows = zip(x, told, label, strict=True)
        wrong = np.concatenate([toy.denoised(row[None], t, [c]) for row, t, c in rows])
        return wrong + 3.0 * (d_c - wrong)

    found = toy.sample("tsg", scale=0.4)
    np.testing.assert_allclose(found, toy.integrate(guide), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("data", ["digits", "modes1d"])
def test_network_gets_the_perturbed_level_and_unperturbed_scalings(data):
    method, nets = tiny_edm(data)
    rule, sigma, sigma_data = make_rule("tsg"), 0.9, method.config.sigma_data
    labels = one_hot(0, 1, 1, of=method.data.num_classes)
    x = SampleRNG(2, range(3)).randn(method.data.shape)
    networks = Networks(main=lambda x, s, c: nets(x, s, c), module=nets.model)
    call = make_call(networks, x, sigma, labels, rng=SampleRNG(5, range(3)))
    got = rule.reference(call)
    wrong = np.log(sigma * factors(5, 3, 1.0, 1.0, 1.0)) / 4
    total = sigma**2 + sigma_data**2
    c_noise = torch.from_numpy(wrong).float()
    raw = nets.model(x / total**0.5, c_noise, labels, None)
    expected = sigma_data**2 / total * x + sigma * sigma_data / total**0.5 * raw
    # The scalings are float32 and once computed in a different order.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    true = nets(x, torch.tensor(sigma), labels)
    assert torch.equal(call.denoise(), true)
    assert float((got - true).abs().max()) > 1e-3


def test_network_is_restored_after_an_error():
    method, nets = tiny_edm()
    x, labels = torch.zeros(2, *method.data.shape), one_hot(0, 1, of=10)

    def main(x, sigma, c):
        nets(x, sigma, c)
        raise RuntimeError("out of memory")

    before = nets(x, torch.tensor(1.0), labels)
    call = make_call(Networks(main, module=nets.model), x, 1.0, labels)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_rule("tsg").reference(call)
    assert torch.equal(nets(x, torch.tensor(1.0), labels), before)


@pytest.mark.parametrize("g", [0.5, 4.0])
def test_unperturbed_level_gives_no_guidance(g):
    rule = TSG(TSGKnobs(scale=0.0))
    plain = trajectory(exact(), Guidance(1.0))
    assert torch.equal(trajectory(exact(), Guidance(g, rule)), plain)
    method, nets = tiny_edm()
    own = edm_samples(method, nets, Guidance(1.0))
    assert torch.equal(edm_samples(method, nets, Guidance(g, rule)), own)
    assert not torch.equal(edm_samples(method, nets, Guidance(g, TSG())), own)


def test_unperturbed_level_with_null_labels_gives_cfg(separate_calls):
    neutral = Guidance(3.0, TSG(TSGKnobs(**TSG.neutral)))
    assert torch.equal(trajectory(exact(), neutral), trajectory(exact(), Guidance(3.0, CFG())))
    method, nets = tiny_edm()
    assert torch.equal(edm_samples(method, nets, neutral), edm_samples(method, nets, Guidance(3.0)))
