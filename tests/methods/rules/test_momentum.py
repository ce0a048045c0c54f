import numpy as np
import pytest
import torch

from methods import Guidance, SampleRNG
from methods.rules import make_rule
from methods.rules.dry_run import evaluations
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from tests.methods.rules import toy


@pytest.mark.parametrize("std", [1.0, 2.0])
@pytest.mark.parametrize("g", [1.0, 3.0])
def test_against_numpy(g, std):
    mean = []

    def guide(x, d_c, d_u, s, step, stage):
        d = d_u + g * (d_c - d_u)
        v = (x - d) / s - d / std
        m = mean[-1] if mean else v
        mean.append(0.4 * v + 0.6 * m)
        return d - 0.5 * s / (std + s) * std * (v - m)

    found = toy.sample("momentum", g, data_std=std)
    np.testing.assert_allclose(found, toy.integrate(guide, second=False), rtol=1e-9, atol=1e-9)


def test_equal_steps_without_memory_are_those_of_adams_and_bashforth():
    times = np.linspace(0.95, 0.05, 10)
    sigmas = torch.tensor(times / (1 - times))
    found = toy.sample("momentum", 2.0, sigmas, alpha=0.5, beta=0.0)
    x, _, labels, _ = toy.start()
    state, before, h = x.numpy() * (1 - times[0]), None, times[1] - times[0]
    for t in times[:-1]:
        x, s = state / (1 - t), t / (1 - t)
        d_c = toy.denoised(x, s, labels.argmax(1).numpy())
        d_u = toy.denoised(x, s, -np.ones(len(x)))
        v = (x - (2 * d_c - d_u)) / s - (2 * d_c - d_u)
        state = state + h * (v if before is None else 1.5 * v - 0.5 * before)
        before = v
    np.testing.assert_allclose(found, state / (1 - times[-1]), rtol=1e-9, atol=1e-9)


def test_point_mass_has_a_constant_velocity():
    nets = toy.gaussians(1.0, 0.0, 1.0, 0.0)
    x = 80 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    rule = make_rule("momentum", {"momentum": {"alpha": 3.0}})
    sigmas, rng = karras_sigmas(6)[:-1], SampleRNG(0, range(5))
    found = sample_guided(nets, x, sigmas, torch.eye(5), Guidance(1.0, rule), rng)
    torch.testing.assert_close(found, 1 + (x - 1) * float(sigmas[-1] / 80), rtol=1e-9, atol=1e-9)


def test_costs_nothing_and_acts_at_scale_one():
    rule = make_rule("momentum")
    assert evaluations(rule, Guidance(1.0, rule), karras_sigmas(6)) == {"main": 6}
    assert evaluations(rule, Guidance(3.0, rule), karras_sigmas(6)) == {"main": 6, "null": 6}
    assert abs(toy.sample("momentum", 1.0) - toy.sample("momentum", 1.0, alpha=0.0)).max() > 1e-3
