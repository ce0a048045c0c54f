"""MeanFlow against the closed-form flow of a Gaussian, finite differences and numpy."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.data import DATASETS, Modes1d
from bench.training.loop import build_nets
from bench.training.step import draw_batch
from methods import METHODS, Batch, BatchRNG, Guidance, Progress, SampleRNG
from methods.mean_velocity import (
    adaptive,
    guided_velocity,
    interval_features,
    mean_target,
    total_derivative,
)
from methods.meanflow import MeanFlowConfig
from methods.nets.config import MLPConfig

MEANFLOW = METHODS["meanflow"]
DATA = Modes1d().spec
CONFIG = MeanFlowConfig(
    net=MLPConfig(kind="mlp", width=64, blocks=3), guidance_dim=32, sigma_data=2.01, clamp=False
)
METHOD = MEANFLOW(CONFIG, DATA)
B = 64
MEAN, STD = 0.7, 0.4


def column(v):
    return v[:, None]


def spread(t):
    return ((1 - t) ** 2 * STD**2 + t**2).sqrt()


def flow(z, t, to):
    """Move z along the flow of N(MEAN, STD^2) from time t: z = (1 - t) MEAN + spread(t) n."""
    n = (z - column(1 - t) * MEAN) / column(spread(t))
    return column(1 - to) * MEAN + column(spread(to)) * n


def average(z, r, t):
    return (z - flow(z, t, r)) / column(t - r)


def instantaneous(z, t):
    """E[eps - x0 | z] for that Gaussian, by regression of jointly normal variables."""
    slope = (t - (1 - t) * STD**2) / spread(t) ** 2
    return -MEAN + column(slope) * (z - column(1 - t) * MEAN)


def points():
    generator = torch.Generator().manual_seed(0)
    u, fraction = torch.rand(2, B, generator=generator, dtype=torch.float64)
    t = 0.1 + 0.9 * u
    return torch.randn(B, 1, generator=generator, dtype=torch.float64), 0.9 * t * fraction, t


def test_average_velocity_of_a_gaussian_is_its_own_target():
    z, r, t = points()
    target = mean_target(average, z, r, t, instantaneous(z, t))
    # The tolerance is float64 rounding through one derivative.
    torch.testing.assert_close(target, average(z, r, t), rtol=1e-12, atol=1e-12)


def test_other_velocities_and_intervals_violate_the_identity():
    z, r, t = points()
    u, v = average(z, r, t), instantaneous(z, t)
    assert (mean_target(average, z, r, t, 1.1 * v) - u).abs().median() > 0.01
    swapped = v + column(t - r) * total_derivative(average, z, r, t, v)
    assert (swapped - u).abs().median() > 0.1


@pytest.mark.parametrize("name", ["modes1d", "digits"])
def test_derivative_through_the_networks_against_finite_differences(name):
    spec = DATASETS[name]().spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = MEANFLOW(MEANFLOW.presets[name].config, spec).build().double()
        with torch.no_grad():  # layers that start at zero would hide the derivative
            for parameter in nets.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    nets.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    z, v = torch.randn(2, 5, *spec.shape, generator=generator, dtype=torch.float64)
    u, fraction, scales = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    t, r, g = 0.05 + 0.9 * u, 0.9 * u * fraction, 1 + 13 * scales
    labels = torch.eye(spec.num_classes).double()[torch.arange(5) % spec.num_classes]

    def at(h):
        return nets(z + h * v, r, t + h, labels, g)

    got = total_derivative(lambda z, r, t: nets(z, r, t, labels, g), z, r, t, v)
    h = 1e-4
    # A fourth-order difference; a central difference has an error of 1e-7 at its best step.
    wanted = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mixing", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("g", [1.0, 3.0, 14.0])
def test_fixed_point_of_the_guided_velocity_is_cfg(g, mixing):
    generator = torch.Generator().manual_seed(3)
    v_c, v_null = torch.randn(2, B, 1, generator=generator, dtype=torch.float64)
    scale = torch.full((B,), g, dtype=torch.float64)
    cfg = v_null + g * (v_c - v_null)
    # The target is linear in v, so the mean v_c can replace a sample.
    torch.testing.assert_close(guided_velocity(v_c, cfg, v_null, scale, mixing), cfg)
    if g > 1 and mixing:
        assert (guided_velocity(v_c, v_c, v_null, scale, mixing) - cfg).abs().max() > 0.1


class Polynomial(nn.Module):
    """A u with known derivative along the flow: gain t z + r^2 + t^2 + label g."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.calls = []

    def forward(self, z, r, t, labels, g):
        self.calls.append((labels, g))
        own = labels @ torch.tensor([1.0, -2.0]).to(labels)
        return self.gain * column(t) * z + column(r**2 + t**2 + own * g)


def run(**settings):
    method = MEANFLOW(CONFIG.model_copy(update=settings), DATA)
    generator = torch.Generator().manual_seed(1)
    x0 = 2 * torch.randn(B, 1, generator=generator, dtype=torch.float64)
    nets = Polynomial()
    batch = Batch(x0, torch.eye(2, dtype=torch.float64)[torch.arange(B) % 2])
    terms = method.loss(nets, batch, Progress(0, 1), BatchRNG(0, B, 0, B))
    return nets, batch, terms["meanflow"]


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_loss_against_numpy(power):
    nets, batch, loss = run(power=power, label_dropout=0.3)
    rng = BatchRNG(0, B, 0, B)
    times = 1 / (1 + np.exp(-(-0.4 + rng.randn(2).double().numpy())))
    t, low = times.max(1), times.min(1)
    r = np.where(rng.rand().numpy() < 0.75, t, low)
    g = 15.0 ** rng.rand().double().numpy()
    dropped = rng.rand().numpy() < 0.3
    eps = rng.randn(1)[:, 0].double().numpy()
    assert 0 < dropped.sum() < B
    assert 0 < (r < t).sum() < B / 2

    y = batch.x0[:, 0].numpy() / CONFIG.sigma_data
    z = (1 - t) * y + t * eps
    g = np.where(dropped, 1.0, g)
    label = np.where(dropped, 0.0, np.where(np.arange(B) % 2 == 0, 1.0, -2.0))
    # At r = t the branches differ by label g.
    v = eps - y + (1 - 1 / g) * label * g
    target = v - (t - r) * (0.5 * (z + t * v) + 2 * t)
    error = 0.5 * t * z + r**2 + t**2 + label * g - target
    # Times and scales are float32 draws in both; all else is float64.
    expected = error**2 / (error**2 + 1e-3) ** power
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=2e-5, atol=1e-6)

    loss.sum().backward()
    weight = (error**2 + 1e-3) ** -power
    # Neither the target nor the weight carries a gradient.
    wanted = (weight * 2 * error * t * z).sum()
    assert float(nets.gain.grad) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("tangent", ["sample", "network"])
def test_loss_with_mixed_targets_against_numpy(tangent):
    mixing = 0.3
    nets, batch, loss = run(
        power=0.0, per_scale=True, mixing=mixing, tangent=tangent, label_dropout=0.3
    )
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
    u_null = 0.5 * t * z + 2 * t**2
    u_cond = u_null + label * g
    k = mixing * (1 - 1 / g)
    v = g * (1 - k) * (eps - y) + (1 - g * (1 - k) - k) * u_null + k * u_cond
    along = v if tangent == "sample" else u_cond
    target = v - (t - r) * (0.5 * (z + t * along) + 2 * t)
    error = (0.5 * t * z + r**2 + t**2 + label * g - target) / g
    # Times and scales are float32 draws in both; all else is float64.
    np.testing.assert_allclose(loss.detach().numpy(), error**2, rtol=2e-5, atol=1e-6)
    loss.sum().backward()
    wanted = (2 * error * t * z / g).sum()
    assert float(nets.gain.grad) == pytest.approx(wanted, rel=1e-4)


def test_network_that_predicts_data_returns_the_one_step_sample():
    method = MEANFLOW(CONFIG.model_copy(update={"predict": "data"}), DATA)
    nets = build_nets(method, 0).requires_grad_(False)
    nets.model.last.bias.fill_(0.3)
    labels = torch.eye(2)[[0, 1, 0]]
    x = method.sample(nets, labels, Guidance(3.0), 1, SampleRNG(0, range(3)))
    # The last layer starts at zero. States are float32.
    torch.testing.assert_close(x, torch.full_like(x, 0.3 * CONFIG.sigma_data))
    z, r = torch.ones(2, 1), torch.zeros(2)
    u = nets(z, r, torch.tensor([0.01, 0.5]), labels[:2], torch.ones(2))
    # Below t = 0.05 the divisor is constant.
    torch.testing.assert_close(u[:, 0], torch.tensor([0.7 / 0.05, 0.7 / 0.5]))


def test_scales_are_log_uniform_and_null_branch_is_unguided():
    nets, _, _ = run()
    labels, g = nets.calls[0]
    assert not labels[B:].any()
    assert torch.equal(g[B:], torch.ones_like(g[B:]))
    own = g[:B]
    assert torch.equal(own[~labels[:B].any(1)], own.new_ones(int((~labels[:B].any(1)).sum())))
    # The median of a log-uniform scale on [1, 15] is sqrt(15) = 3.9; uniform would give 8.
    assert 2 < own[labels[:B].any(1)].median() < 6.5
    assert own.min() >= 1
    assert 10 < own.max() <= 15


def test_loss_without_intervals_is_flow_matching():
    _, batch, loss = run(same_time=0.999999, label_dropout=0.999999, power=0.0)
    rng = BatchRNG(0, B, 0, B)
    t = torch.sigmoid(-0.4 + rng.randn(2)).amax(1).double()
    for _ in range(3):  # r, the scale and dropped labels
        rng.rand()
    eps, y = rng.randn(1).double(), batch.x0 / CONFIG.sigma_data
    z = column(1 - t) * y + column(t) * eps
    u = 0.5 * column(t) * z + column(2 * t**2)
    torch.testing.assert_close(loss, (u - (eps - y)).square().sum(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_exact_average_velocity_gives_exact_samples(steps):
    scales = []

    def exact(z, r, t, labels, g):
        scales.append(g)
        return average(z.double(), r.double(), t.double()).float()

    x = METHOD.sample(exact, torch.eye(2)[[0, 1, 0]], Guidance(3.0), steps, SampleRNG(0, range(3)))
    noise = SampleRNG(0, range(3)).randn(DATA.shape)
    # At t = 1 the flow of the Gaussian starts from the noise. States are float32.
    torch.testing.assert_close(x, CONFIG.sigma_data * (MEAN + STD * noise), rtol=1e-5, atol=1e-5)
    assert len(scales) == steps == METHOD.nfe(Guidance(3.0), steps)
    assert all(torch.equal(g, torch.full((3,), 3.0)) for g in scales)


def test_interval_features_are_smooth():
    at = torch.linspace(0, 1, 101, dtype=torch.float64)
    features = interval_features(at, 8)
    periods = np.array([4.0, 4 ** (1 / 3), 4 ** (-1 / 3), 0.25])
    angle = at.numpy()[:, None] * 2 * np.pi / periods
    wanted = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    # The periods are float32.
    np.testing.assert_allclose(features.numpy(), wanted, rtol=0, atol=1e-5)


def test_adaptive_weight_of_images_sums_over_all_values():
    error = torch.full((2, 1, 2, 2), 0.5)
    assert adaptive(error, 0.0, 1e-3).tolist() == [1.0, 1.0]
    assert adaptive(error, 1.0, 1.0).tolist() == [0.5, 0.5]


def test_supports():
    assert METHOD.supports(Guidance(1.0), 1) is None
    assert METHOD.supports(Guidance(15.0), 2) is None
    for scale in (0.5, 15.5):
        assert METHOD.supports(Guidance(scale), 1) == f"trained for guidance 1 to 15, not {scale:g}"


def test_dropout_is_refused():
    with pytest.raises(ValidationError, match=r"without dropout, got net\.dropout 0\.1"):
        MeanFlowConfig(net=MLPConfig(dropout=0.1))


def test_mixed_precision_trains_with_the_derivative_in_float32():
    data = DATASETS["digits"]()
    method = MEANFLOW(MEANFLOW.presets["digits"].config, data.spec)
    nets = build_nets(method, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in nets.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    batch = draw_batch(data.train, method, BatchRNG(1, 16, 0, 16), torch.device("cpu"))

    def u(z, r, t):
        return nets(z, r, t, batch.labels, torch.ones_like(t))

    t = torch.linspace(0.2, 0.9, 16)
    arguments = u, batch.x0, t / 2, t, batch.x0.flip(0)
    with torch.no_grad():
        plain = total_derivative(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = total_derivative(*arguments)
    assert torch.equal(mixed, plain)
    # The dtypes that the training loop passes.
    rounded = Batch(batch.x0.bfloat16(), batch.labels.bfloat16())
    seen = []
    nets.model.register_forward_pre_hook(lambda _, args: seen.extend(a.dtype for a in args))
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(nets, rounded, Progress(0, 1), BatchRNG(2, 16, 0, 16))["meanflow"]
    assert loss.isfinite().all()
    assert set(seen) == {torch.float32}
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in nets.model.dec.parameters())


# A Gaussian per class with the guided mean inside of the interval: the exact velocities.
CLASS_MEANS, NULL = torch.tensor([0.7, -0.2], dtype=torch.float64), 0.1


def segmented(z, r, t, labels, g, interval):
    """The mean velocity of the flow whose mean is guided only at times within `interval`."""
    z, r, t, g = z.double(), r.double(), t.double(), g.double()
    low, high = interval.double().T
    own = torch.where(labels.any(1), labels.double() @ CLASS_MEANS, NULL)
    far = NULL + g * (own - NULL)
    x, at = z, t
    for mean, end in ((own, high), (far, low), (own, torch.zeros_like(low))):
        to = torch.minimum(at, torch.maximum(end, r))
        n = (x - column((1 - at) * mean)) / column(spread(at))
        x, at = column((1 - to) * mean) + column(spread(to)) * n, to
    slope = (t - (1 - t) * STD**2) / spread(t) ** 2
    mean = torch.where((low <= t) & (t <= high), far, own)
    v = column(-mean) + column(slope) * (z - column((1 - t) * mean))
    apart = column(t - r)
    return torch.where(apart > 0, (z - x) / torch.where(apart > 0, apart, 1.0), v)


class Segmented(nn.Module):
    def __init__(self):
        super().__init__()
        self.intervals = []

    def forward(self, z, r, t, labels, g, interval):
        self.intervals.append(interval)
        return segmented(z, r, t, labels, g, interval)


INTERVAL = {"interval": (0.3, 0.8), "same_time": 0.5, "label_dropout": 0.3, "power": 0.0}


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_flow_guided_in_an_interval_is_the_fixed_point(mixing):
    settings = INTERVAL | {"mixing": mixing, "tangent": "network"}
    method = MEANFLOW(CONFIG.model_copy(update=settings), DATA)
    rng = BatchRNG(0, B, 0, B)
    t = torch.sigmoid(-0.4 + rng.randn(2)).amax(1).double()
    rng.rand(), rng.rand()  # r, and the scale
    dropped = rng.rand() < 0.3
    eps = rng.randn(1).double()
    labels = torch.eye(2)[torch.arange(B) % 2]
    # Clean samples that are their own mean given z, so that eps - y is the mean velocity.
    mean = torch.where(dropped, NULL, labels.double() @ CLASS_MEANS)
    k = (1 - t) * STD**2 / spread(t) ** 2
    y = column(mean) + column(k * t / (1 - k * (1 - t))) * eps
    nets = Segmented()
    batch = Batch(CONFIG.sigma_data * y, labels)
    loss = method.loss(nets, batch, Progress(0, 1), BatchRNG(0, B, 0, B))["meanflow"]
    # Times, scales and intervals are float32 draws; errors grow with g.
    assert loss.max() < 1e-8

    at_once, apart, used = nets.intervals[0], nets.intervals[1], nets.intervals[-1]
    assert torch.equal(at_once, torch.tensor([0.0, 1.0]).to(at_once).expand(2 * B, 2))
    own = used[(used != at_once[:B]).any(1)]
    assert 10 < len(own) < B
    assert torch.equal(own, apart)
    low, high = own.T
    assert 0 <= low.min() < 0.1 < 0.4 < low.max() <= 0.5 <= high.min() < 0.6 < 0.9 < high.max() <= 1
    inside = ((used[:, 0] <= t) & (t <= used[:, 1]))[(used != at_once[:B]).any(1)]
    assert 5 < inside.sum() < len(inside) - 2


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_samples_are_guided_in_the_interval_of_the_settings(steps):
    method = MEANFLOW(CONFIG.model_copy(update=INTERVAL), DATA)
    labels = torch.eye(2)[[0, 1, 0]]

    def exact(*given):
        return segmented(*given).float()

    x = method.sample(exact, labels, Guidance(3.0), steps, SampleRNG(0, range(3)))
    z = SampleRNG(0, range(3)).randn(DATA.shape)[:, 0].double().numpy()
    own = CLASS_MEANS.numpy()[[0, 1, 0]]
    at = 1.0
    for mean, to in ((own, 0.8), (NULL + 3 * (own - NULL), 0.3), (own, 0.0)):
        width, narrow = (np.hypot((1 - s) * STD, s) for s in (at, to))
        z, at = (1 - to) * mean + (z - (1 - at) * mean) * narrow / width, to
    # States are float32.
    np.testing.assert_allclose(x[:, 0].numpy(), CONFIG.sigma_data * z, rtol=0, atol=2e-5)


def test_interval_is_an_input_of_the_network():
    method = MEANFLOW(CONFIG.model_copy(update={"interval": (0.3, 0.8)}), DATA)
    nets, plain = method.build(), METHOD.build()
    shapes = [n.model.map_w_embed.weight.shape[1] for n in (nets, plain)]
    assert shapes == [66, 64]


@pytest.mark.parametrize("interval", [(0.6, 0.8), (0.2, 0.4), (-0.1, 0.8), (0.2, 1.5)])
def test_interval_outside_of_training_is_refused(interval):
    with pytest.raises(ValidationError, match=r"t_min in \[0, \.5\] and t_max in \[\.5, 1\], got"):
        MeanFlowConfig(net=MLPConfig(), interval=interval)
