import numpy as np
import pytest
import torch

from methods.samplers import karras_sigmas
from tests.methods.rules import toy


@pytest.mark.parametrize("std", [1.0, 2.0])
def test_against_numpy(std):
    """In the state X = t x of flow, whose time t = 1 / (1 + sigma) runs towards the data."""

    def step(x, cond, null, s, t, k):
        now, then = 1 / (1 + s / std), 1 / (1 + t / std)
        if now < 0.6:
            state, half = now * x / std, (then - now) / 2
            for _ in range(2):
                state = state - half * (null(std * state / now, s) / std - state) / (1 - now)
                state = state + half * (cond(std * state / now, s) / std - state) / (1 - now)
            x = std * state / now
        return toy.cfg_euler(x, cond, null, s, t)

    found = toy.sample("cfg-mp", data_std=std)
    np.testing.assert_allclose(found, toy.walk(step), rtol=1e-9, atol=1e-9)


def test_a_move_is_worth_half_a_unit_of_scale():
    nets, x = toy.gaussians(0.5, 1.0, 0.0, 1.0), torch.zeros(1, 1).double()
    errors = []
    for steps in (200, 400):
        moved = toy.of_gaussians("cfg-mp", nets, karras_sigmas(steps), x, 2.0, until=1.0)
        plain = toy.of_gaussians("cfg-mp", nets, karras_sigmas(steps), x, iterations=0)
        errors.append(abs(float((moved - plain)[0, 0])))
    assert errors[0] < 0.01
    assert errors[1] < 0.6 * errors[0]


def test_two_evaluations_per_move():
    assert toy.counted("cfg-mp", until=1.0) == {"main": 6 + 12, "null": 6 + 12}
    assert toy.counted("cfg-mp", until=0.0) == {"main": 6, "null": 6}
