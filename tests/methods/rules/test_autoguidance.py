"""Autoguidance against the formula, and with two equal networks."""

import numpy as np
import pytest
import torch

from methods import Guidance
from methods.rules import CFG, Networks, make_rule
from methods.rules.autoguidance import Autoguidance
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from tests.methods.rules.references import (
    edm_samples,
    exact,
    one_hot,
    tiny_edm,
    trajectory,
)

NULL = {"autoguidance": {"labels": "null"}}


def numpy_denoised(x, sigma, c, std):
    """The denoiser of class c for classes with one mode each at -2, 0 and 2."""
    mean = np.array([-2.0, 0.0, 2.0])[c][:, None]
    return mean + std**2 / (std**2 + sigma**2) * (x - mean)


def test_trajectory_against_the_formula():
    std, weak_std, g = 0.5, 1.5, 2.5
    c = np.array([0, 1, 2])
    sigmas = karras_sigmas(6)

    def denoiser(std):
        return lambda x, sigma, labels: torch.from_numpy(
            numpy_denoised(x.numpy(), float(sigma), labels.argmax(1).numpy(), std)
        )

    networks = Networks(main=denoiser(std), weak=denoiser(weak_std))
    noise = np.array([[0.3], [-1.0], [0.7]])
    x = 80 * noise
    for now, then in zip(sigmas[:-1].numpy(), sigmas[1:].numpy(), strict=True):

        def slope(x, sigma):
            bad = numpy_denoised(x, sigma, c, weak_std)
            return (x - bad - g * (numpy_denoised(x, sigma, c, std) - bad)) / sigma

        first = slope(x, now)
        ahead = x + (then - now) * first
        x = ahead if then == 0 else x + (then - now) * (first + slope(ahead, then)) / 2
    guidance = Guidance(g, make_rule("autoguidance"))
    got = sample_guided(
        networks, torch.from_numpy(80 * noise), sigmas, one_hot(0, 1, 2), guidance, None
    )
    np.testing.assert_allclose(got.numpy(), x, rtol=1e-10)


@pytest.mark.parametrize("g", [0.5, 2.0, 9.0])
def test_equal_networks_give_no_guidance(g):
    networks = exact()
    same = Networks(networks.main, networks.null, networks.main)
    plain = trajectory(networks, Guidance(1.0))
    assert torch.equal(trajectory(same, Guidance(g, make_rule("autoguidance"))), plain)
    assert not torch.equal(trajectory(networks, Guidance(g, make_rule("autoguidance"))), plain)


def test_equal_networks_with_null_labels_give_cfg():
    networks = exact()
    same = Networks(networks.main, networks.null, networks.main)
    neutral = Guidance(3.0, Autoguidance(Autoguidance.knobs_type(**Autoguidance.neutral)))
    assert torch.equal(trajectory(same, neutral), trajectory(same, Guidance(3.0, CFG())))


def test_edm_with_a_weaker_network_as_reference(separate_calls):
    method, nets = tiny_edm()
    paired = method.with_weak(method.config)
    both = paired.build()
    own = nets.state_dict()
    both.load_state_dict(own | {f"weak.{key}": value for key, value in own.items()})
    plain = edm_samples(method, nets, Guidance(1.0))
    rule, null = make_rule("autoguidance"), make_rule("autoguidance", NULL)
    assert torch.equal(edm_samples(paired, both, Guidance(4.0, rule)), plain)
    guided = edm_samples(method, nets, Guidance(4.0))
    assert torch.equal(edm_samples(paired, both, Guidance(4.0, null)), guided)
    assert not torch.equal(guided, plain)
    assert "--weak-checkpoint" in method.supports(Guidance(4.0, rule), 3)
    assert paired.supports(Guidance(4.0, rule), 3) is None


def test_evaluations_of_a_smaller_network_have_less_weight():
    method, _ = tiny_edm()
    small = method.config.net.model_copy(update={"channels": 4})
    paired = method.with_weak(method.config.model_copy(update={"net": small}))
    nets = paired.build()
    main, weak = (sum(p.numel() for p in n.parameters()) for n in (nets.model, nets.weak))
    guidance = Guidance(2.0, make_rule("autoguidance"))
    assert paired.nfe(guidance, 3) == 10
    assert paired.nfe_weighted(guidance, 3) == pytest.approx(5 + 5 * weak / main)
    assert weak < main


def test_weaker_network_without_classes_is_refused():
    method, _ = tiny_edm()
    blind = method.config.net.model_copy(update={"conditional": False})
    with pytest.raises(ValueError, match="--null-checkpoint"):
        method.with_weak(method.config.model_copy(update={"net": blind}))
