"""alpha-Flow against the closed-form flow of a Gaussian and numpy."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.data import Modes1d
from methods import AlphaFlow, Batch, BatchRNG, Progress
from methods.alpha_flow import AlphaFlowConfig, stepped_target
from methods.mean_velocity import mean_target
from methods.nets.config import MLPConfig

DATA = Modes1d().spec
CONFIG = AlphaFlowConfig(
    net=MLPConfig(width=8, blocks=1), guidance_dim=8, sigma_data=2.01, clamp=False
)
B = 64
MEAN, STD = 0.7 / 0.5, 0.9 / 0.5  # in units of sigma_data .5


def column(v):
    return v[:, None]


def spread(t):
    return ((1 - t) ** 2 * STD**2 + t**2).sqrt()


def average(z, r, t):
    """The mean velocity over [r, t] of the flow of N(MEAN, STD^2)."""
    moved = column(1 - r) * MEAN + (z - column(1 - t) * MEAN) * column(spread(r) / spread(t))
    return (z - moved) / column(t - r)


def instantaneous(z, t):
    slope = (t - (1 - t) * STD**2) / spread(t) ** 2
    return -MEAN + column(slope) * (z - column(1 - t) * MEAN)


def at(*values):
    z, r, t = (torch.tensor([v], dtype=torch.float64) for v in values)
    return column(z), r, t


@pytest.mark.parametrize(
    ("alpha", "error"), [(1.0, 1.249), (0.5, 0.502), (0.1, 0.0242), (0.01, 2.4e-4)]
)
def test_error_of_the_target_at_the_exact_velocities(alpha, error):
    # Computed apart, in numpy, for z 1.3, t .8, r .25, N(.7, .9^2) and sigma_data .5.
    z, r, t = at(1.3, 0.25, 0.8)
    target = stepped_target(average, z, r, t, instantaneous(z, t), alpha)
    assert float((target - average(z, r, t)).abs()) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_target_is_exact_if_the_step_is(alpha):
    # With the mean velocity over the step in place of v, both parts of the way are exact. At
    # alpha 1/2 this is the identity of shortcut models.
    z, r, t = at(1.3, 0.25, 0.8)
    v = average(z, t - alpha * (t - r), t)
    torch.testing.assert_close(stepped_target(average, z, r, t, v, alpha), average(z, r, t))


def test_small_steps_have_the_error_of_meanflow():
    def other(z, r, t):
        return column(t) * z.sin() + column(r * t)

    z, r, t = at(1.3, 0.25, 0.8)
    v = torch.full_like(z, -0.4)
    wanted = other(z, r, t) - mean_target(other, z, r, t, v)
    alpha = 1e-5
    got = (other(z, r, t) - stepped_target(other, z, r, t, v, alpha)) / alpha
    # Steps of alpha have an error of order alpha.
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("alpha", "ratio"), [(0.5, 0.457), (0.1, 0.904)])
def test_fixed_point_is_eulers_method_with_geometric_steps(alpha, ratio):
    def fixed(z, r, t):
        if float(t - r) < 1e-9:
            return instantaneous(z, t)
        return stepped_target(fixed, z, r, t, instantaneous(z, t), alpha)

    def sample(noise):
        z, r, t = at(noise, 0.0, 1.0)
        return float(z - fixed(z, r, t))

    # The map is linear in the noise, whose standard deviation is 1.
    assert (sample(1.0) - sample(0.0)) / STD == pytest.approx(ratio, abs=6e-4)
    z, length = [0.0, 1.0], 1.0
    while length > 1e-9:
        v = [float(instantaneous(*at(x, length, length)[::2])) for x in z]
        z = [x - alpha * length * u for x, u in zip(z, v, strict=True)]
        length *= 1 - alpha
    assert sample(1.0) - sample(0.0) == pytest.approx(z[1] - z[0], rel=1e-6)


def test_alpha_falls_from_one_to_zero():
    config = CONFIG.model_copy(update={"alpha_from": 0.2, "alpha_to": 0.6})
    steps = {0: 1, 199: 1, 200: 1, 400: 0.5, 599: 0, 600: 0, 999: 0}
    found = {k: config.alpha(Progress(k, 1000)) for k in steps}
    assert found == pytest.approx(steps, abs=1e-12)
    # (300 - 200) / 400 of the way: sigmoid(25 / 4); cut off above .995.
    assert 1 - 1 / (1 + math.exp(25 / 4)) > 0.995
    assert config.alpha(Progress(300, 1000)) == 1
    assert config.alpha(Progress(340, 1000)) == pytest.approx(1 / (1 + math.exp(25 * -0.15)))
    open_ended = config.model_copy(update={"alpha_cutoff": 0.0})
    assert open_ended.alpha(Progress(599, 1000)) == pytest.approx(math.exp(-12.5), rel=0.1)


def test_range_of_alpha_must_ascend():
    with pytest.raises(ValidationError, match="alpha_from and alpha_to must ascend"):
        AlphaFlowConfig(net=MLPConfig(), alpha_from=0.5, alpha_to=0.5)


class WithoutDerivative(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return slope


class Polynomial(nn.Module):
    """gain t z + r^2 + t^2 + label g, by a layer that has no forward-mode derivative."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.calls = []

    def forward(self, z, r, t, labels, g):
        self.calls.append(len(z))
        own = labels @ torch.tensor([1.0, -2.0]).to(labels)
        return WithoutDerivative.apply(self.gain * column(t) * z + column(r**2 + t**2 + own * g))


def run(step, **settings):
    method = AlphaFlow(CONFIG.model_copy(update=settings), DATA)
    generator = torch.Generator().manual_seed(1)
    x0 = 2 * torch.randn(B, 1, generator=generator, dtype=torch.float64)
    nets = Polynomial()
    batch = Batch(x0, torch.eye(2, dtype=torch.float64)[torch.arange(B) % 2])
    terms = method.loss(nets, batch, Progress(step, 100), BatchRNG(0, B, 0, B))
    return nets, batch, terms["alpha-flow"]


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("step", [0, 50, 60])
def test_loss_against_numpy_without_a_derivative(step, power):
    nets, batch, loss = run(step, power=power, label_dropout=0.3)
    rng = BatchRNG(0, B, 0, B)
    times = 1 / (1 + np.exp(-(-0.4 + rng.randn(2).double().numpy())))
    t, low = times.max(1), times.min(1)
    r = np.where(rng.rand().numpy() < 0.75, t, low)
    g = 15.0 ** rng.rand().double().numpy()
    dropped = rng.rand().numpy() < 0.3
    eps = rng.randn(1)[:, 0].double().numpy()

    y = batch.x0[:, 0].numpy() / CONFIG.sigma_data
    z = (1 - t) * y + t * eps
    g = np.where(dropped, 1.0, g)
    label = np.where(dropped, 0.0, np.where(np.arange(B) % 2 == 0, 1.0, -2.0))

    def u(z, r, t):
        return 0.5 * t * z + r**2 + t**2 + label * g

    v = eps - y + (1 - 1 / g) * label * g
    alpha = {0: 1.0, 50: 0.5, 60: 1 / (1 + np.exp(2.5))}[step]
    apart = r < t
    assert 0 < apart.sum() < B / 2
    moved = t - alpha * (t - r)
    stepped = alpha * v + (1 - alpha) * u(z - (t - moved) * v, r, moved)
    error = u(z, r, t) - np.where(apart, stepped, v)
    weight = np.where(apart, alpha ** (2 * power - 1), 1.0)
    expected = weight * error**2 / (error**2 + 1e-3) ** power
    # Times and scales are float32 draws in both; all else is float64.
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=2e-5, atol=1e-6)

    loss.sum().backward()
    wanted = (weight * (error**2 + 1e-3) ** -power * 2 * error * t * z).sum()
    assert float(nets.gain.grad) == pytest.approx(wanted, rel=1e-4)
    # Both branches, one more evaluation of rows with r < t unless alpha is 1, and the loss itself.
    assert nets.calls == [2 * B, *([int(apart.sum())] if alpha < 1 else []), B]


def test_derivative_is_taken_only_where_alpha_is_zero():
    with pytest.raises(RuntimeError, match=r"forward mode AD|jvp"):
        run(99)


def test_rows_without_an_interval_have_the_sampled_velocity():
    # All rows have r = t; one of them is evaluated nonetheless.
    nets, batch, loss = run(50, same_time=0.999999, label_dropout=0.999999, power=0.0)
    rng = BatchRNG(0, B, 0, B)
    t = torch.sigmoid(-0.4 + rng.randn(2)).amax(1).double()
    for _ in range(3):  # r, the scale and dropped labels
        rng.rand()
    eps, y = rng.randn(1).double(), batch.x0 / CONFIG.sigma_data
    z = column(1 - t) * y + column(t) * eps
    u = 0.5 * column(t) * z + column(2 * t**2)
    torch.testing.assert_close(loss, (u - (eps - y)).square().sum(1), rtol=1e-5, atol=1e-6)
    assert nets.calls == [2 * B, 1, B]
