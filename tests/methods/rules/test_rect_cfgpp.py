import numpy as np
import pytest
import torch

from methods.samplers import karras_sigmas
from tests.methods.rules import toy


@pytest.mark.parametrize(("reach", "std"), [(1.0, 1.0), (1.0, 2.0), (0.5, 1.0)])
def test_against_numpy(reach, std):
    """In the state X = (1 - t) x of flow, with the time of the start throughout."""

    def step(x, cond, null, s, end, k):
        t, t_end = s / (std + s), end / (std + end)

        def v(denoiser, state):
            return (state - denoiser(std * state / (1 - t), s) / std) / t

        state = (1 - t) * x / std
        v_c = v(cond, state)
        ahead = state + reach * (t_end - t) * v_c
        state = state + (t_end - t) * (v_c + 2 * (v(cond, ahead) - v(null, ahead)))
        return std * state / (1 - t_end)

    found = toy.sample("rect-cfgpp", reach=reach, data_std=std)
    np.testing.assert_allclose(found, toy.walk(step), rtol=1e-8, atol=1e-8)


def test_equal_gaussians_give_cfg():
    nets, x = toy.gaussians(1.0, 0.6, -0.5, 0.6), torch.linspace(-80, 80, 5).double()[:, None]
    found, plain = (
        toy.of_gaussians("rect-cfgpp", nets, karras_sigmas(9), x, reach=r) for r in (1.0, 0.0)
    )
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-9)


def test_three_evaluations_per_step():
    assert toy.counted("rect-cfgpp") == {"main": 12, "null": 6}
