"""Inductive moment matching against the flow of a Gaussian, the published map, and numpy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Modes1d
from methods import IMM, METHODS, Batch, BatchRNG, Guidance, Progress, SampleRNG
from methods.imm import IMMConfig, moment_distance, output_scale, time_weight
from methods.mean_velocity import interval_features
from methods.nets.config import MLPConfig
from methods.precond import ConsistencyPrecond
from methods.rules import RULES, make_rule
from methods.rules.record import Record

DATA = Modes1d().spec
SD, STD = 2.01, 0.9
MEANS = torch.tensor([1.5, -0.5], dtype=torch.float64)
NULL = 0.3
CONFIG = IMMConfig(net=MLPConfig(width=8, blocks=1), time_dim=8, sigma_data=SD, middle_sigma=2.8)
METHOD = IMM(CONFIG, DATA)
LOWEST = 0.003 / (0.003 + SD)
B = 64


def end_of(features):
    """The level s of features of its time; the lowest time stands for 0."""
    s = features[:, 0].double().asin() * 4 / (2 * math.pi)
    s = torch.where(s < 1.001 * LOWEST, 0.0, s)
    return SD * s / (1 - s)


class Gaussian(nn.Module):
    """The map of the flow of N(mean of the class, STD^2) as a denoiser that knows s, exactly."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, labels, features, *, form, dropout=None):
        self.calls.append((x, sigma, labels, features, form, torch.is_grad_enabled()))
        x, sigma = x.double(), sigma.double()[:, None]
        s = end_of(features)[:, None].clamp(max=0.999999 * sigma)
        mean = torch.where(labels.any(1, keepdim=True), labels.double() @ MEANS[:, None], NULL)
        moved = mean + (x - mean) * ((STD**2 + s**2) / (STD**2 + sigma**2)).sqrt()
        share = s / sigma
        return (moved - share * x) / (1 - share)


def labels_of(n):
    return torch.eye(2)[torch.arange(n) % 2]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("g", [1.0, 4.0])
def test_samples_under_guidance_are_those_of_the_gaussian_with_the_guided_mean(g, steps):
    nets = Gaussian()
    x = METHOD.sample(nets, labels_of(6), Guidance(g), steps, SampleRNG(0, range(6)))
    noise = 80 * SampleRNG(0, range(6)).randn(DATA.shape).double()
    mean = NULL + g * (labels_of(6).double() @ MEANS[:, None] - NULL)
    wanted = mean + (noise - mean) * STD / math.sqrt(STD**2 + 80**2)
    # States are float64, and networks get them in float32, with values up to 80.
    torch.testing.assert_close(x.double(), wanted, rtol=0, atol=2e-4)
    rows = sum(len(call[0]) for call in nets.calls)
    assert rows == 6 * METHOD.nfe(Guidance(g), steps) == 6 * steps * (1 if g == 1 else 2)


def test_levels_are_even_in_time_or_the_given_middle():
    levels = METHOD.grid(4)
    times = levels / (levels + SD)
    torch.testing.assert_close(times, torch.linspace(80 / (80 + SD), 0, 5, dtype=torch.float64))
    assert METHOD.grid(1).tolist() == [80, 0]
    assert METHOD.grid(2).tolist() == [80, 2.8, 0]


class Fixed(nn.Module):
    def forward(self, x, c_noise, labels, w_embed, *, augment=None, dropout=None):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_map_is_the_published_one_of_edms_form(value):
    t = torch.tensor([0.1, 0.5, 0.97], dtype=torch.float64)
    s = torch.tensor([0.02, 0.5, 0.3], dtype=torch.float64)
    z = torch.tensor([[0.7], [-1.2], [2.0]], dtype=torch.float64)
    inner = Fixed()
    inner.value = value
    nets = ConsistencyPrecond(inner, sigma_data=SD, sigma_min=0.003)
    sigma, end = SD * t / (1 - t), SD * s / (1 - s)
    x = z / (1 - t)[:, None]
    d = nets(x, sigma, labels_of(3), None, form="train")
    share = (end / sigma)[:, None]
    got = (1 - s)[:, None] * (d + share * (x - d))
    root = ((1 - t) ** 2 + t**2).sqrt()
    skip = ((1 - t) * (1 - s) + t * s) / root**2
    scale = SD * ((1 - s) * t - (1 - t) * s) / root
    # The published F has the other sign.
    torch.testing.assert_close(got, skip[:, None] * z + scale[:, None] * value)
    torch.testing.assert_close(output_scale(s, t, SD), scale)
    torch.testing.assert_close(got[1], z[1])  # s = t


@pytest.mark.parametrize("bias", [5.0, -1.0])
def test_weight_of_time_against_numpy(bias):
    t = np.array([0.006, 0.3, 0.5, 0.99])
    snr = np.log((1 - t) ** 2 / t**2)
    slope = 2 / (t * (1 - t))
    wanted = 0.5 / (1 + np.exp(snr - bias)) * slope * (1 - t) / ((1 - t) ** 2 + t**2)
    np.testing.assert_allclose(time_weight(torch.from_numpy(t), bias).numpy(), wanted)
    # -d(ln SNR)/dt by a difference
    h = 1e-6
    moved = np.log((1 - t - h) ** 2 / (t + h) ** 2) - np.log((1 - t + h) ** 2 / (t - h) ** 2)
    np.testing.assert_allclose(-moved / (2 * h), slope, rtol=1e-6)
    assert time_weight(torch.from_numpy(t), None).tolist() == [1, 1, 1, 1]


def kernel(a, b, width):
    return np.exp(-max(np.linalg.norm(a - b), 1e-8) / (width * a.size))


def mmd(a, b, labels, width, group):
    """The squared MMD of every group, summed over its labels with their shares of rows."""
    found = np.zeros(len(a))
    for start in range(0, len(a), group):
        rows = range(start, min(start + group, len(a)))
        for j in rows:
            own = [k for k in rows if labels[k] == labels[j]]
            found[j] = np.mean([
                kernel(a[j], a[k], width[j]) + kernel(b[j], b[k], width[j])
                - 2 * kernel(a[j], b[k], width[j]) for k in own
            ])  # fmt: skip
    return found


@pytest.mark.parametrize(("rows", "group"), [(12, 4), (10, 4), (3, 4), (5, 1)])
def test_distance_of_groups_against_numpy(rows, group):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, rows, 1, 2, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2] * 3)[:rows]
    one_hot = torch.eye(3)[labels] * (labels < 2)[:, None]  # 2 is null
    width = (0.5 + torch.arange(rows) // group).double()
    got = moment_distance(a, b, one_hot, width, group)
    wanted = mmd(a.numpy(), b.numpy(), labels.numpy(), width.numpy(), group)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)
    if group == 1:
        pairs = zip(a.numpy(), b.numpy(), width.numpy(), strict=True)
        alone = [2 - 2 * kernel(x, y, w) for x, y, w in pairs]
        np.testing.assert_allclose(got.numpy(), alone)
    assert moment_distance(a, a, one_hot, width, group).abs().max() < 1e-12


def run(nets=None, **settings):
    method = IMM(CONFIG.model_copy(update=settings), DATA)
    generator = torch.Generator().manual_seed(1)
    labels = labels_of(B)
    x0 = labels.double() @ MEANS[:, None]
    x0 = x0 + STD * torch.randn(B, 1, generator=generator, dtype=torch.float64)
    nets = Gaussian() if nets is None else nets
    loss = method.loss(nets, Batch(x0, labels), Progress(0, 1), BatchRNG(0, B, 0, B))["moments"]
    return nets, x0, loss


def test_loss_against_numpy():
    nets, x0, loss = run(group=4, gap=7.0, weight_bias=2.0, label_dropout=0.3)
    rng = BatchRNG(0, B, 0, B)
    first = np.arange(B) // 4 * 4
    high = 80 / (80 + SD)
    t = LOWEST + (high - LOWEST) * rng.rand().double().numpy()[first]
    s = LOWEST + (t - LOWEST) * rng.rand().double().numpy()[first]
    dropped = rng.rand(1)[:, 0].numpy() < 0.3
    eps = rng.randn(1)[:, 0].double().numpy()
    assert 5 < dropped.sum() < B / 2
    label = np.where(dropped, 2, np.arange(B) % 2)
    mean = np.array([*MEANS.tolist(), NULL])[label]
    end, sigma = SD * s / (1 - s), SD * t / (1 - t)
    lower = np.maximum(end, sigma - (80 - 0.003) / 2**7)
    assert (lower == end).any()
    assert (lower > end).any()

    def mapped(level):
        x = x0[:, 0].numpy() + level * eps
        factor = np.sqrt((STD**2 + end**2) / (STD**2 + level**2))
        return (1 - s) * (mean + (x - mean) * factor)

    width = SD * ((1 - s) * t - (1 - t) * s) / np.sqrt((1 - t) ** 2 + t**2)
    distance = mmd(mapped(sigma), mapped(lower), label, width, 4)
    weight = 1 / (1 + np.exp(2 * np.log((1 - t) / t) - 2)) / (t * ((1 - t) ** 2 + t**2))
    # The end is read from float32 features, which move it by up to 1e-4 of itself.
    np.testing.assert_allclose(loss.numpy(), weight * distance, rtol=0, atol=2e-3 * weight.max())
    target, own = nets.calls
    assert not target[5]
    assert own[5]
    assert torch.equal(target[2], own[2])
    assert torch.equal(target[3], own[3])
    assert all(call[4] == "train" for call in nets.calls)


def test_loss_without_a_gap_is_zero():
    _, _, loss = run(gap=60.0)
    assert loss.abs().max() < 1e-9


def test_exact_map_is_the_fixed_point_and_the_denoiser_is_not():
    # Samples from both levels have the same distribution under the map of the flow. The V-statistic
    # of 4,096 rows of equal distributions is about 1e-4.
    n = 4096
    generator = torch.Generator().manual_seed(5)
    x0, eps = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    x0 = MEANS[0] + STD * x0
    labels, s = torch.eye(2)[[0]].expand(n, 2), 0.2
    end = SD * s / (1 - s)

    def mapped(time, to):
        sigma = torch.full((n,), SD * time / (1 - time), dtype=torch.float64)
        features = interval_features(torch.full((n,), to, dtype=torch.float64), 8)
        x = x0 + sigma[:, None] * eps
        d = Gaussian()(x, sigma, labels, features, form="train")
        return d + (end / sigma)[:, None] * (x - d)

    def distance(a, b):
        return float(moment_distance(a, b, labels, torch.full((n,), 0.5), n).mean())

    assert distance(mapped(0.8, s), mapped(0.5, s)) < 3e-4
    assert distance(mapped(0.8, 0.8), mapped(0.5, 0.5)) > 0.01


def test_slices_of_whole_groups_have_the_terms_of_the_batch():
    _, x0, whole = run(group=4)
    parts = []
    for rng in BatchRNG(0, B, 0, B).split(16):
        rows = slice(rng.start, rng.stop)
        batch = Batch(x0[rows], labels_of(B)[rows])
        parts.append(IMM(CONFIG, DATA).loss(Gaussian(), batch, Progress(0, 1), rng)["moments"])
    torch.testing.assert_close(torch.cat(parts), whole)


FOLLOWS_NOT = ("zigzag", "gibbs", "foresight", "cfg-mp", "rect-cfgpp", "interval+zigzag")


@pytest.mark.parametrize("name", FOLLOWS_NOT)
def test_rules_with_steps_of_their_own_are_refused(name):
    own = name.rpartition("+")[2]
    assert METHOD.supports(Guidance(3.0, make_rule(name)), 2) == (
        f"{own} takes steps of its own, and the network of imm maps from each level of the "
        "sampler to the next only"
    )
    assert METHOD.supports(Guidance(1.0, make_rule(name)), 2) is None


@pytest.mark.parametrize("name", sorted(set(RULES) - set(FOLLOWS_NOT)))
def test_other_rules_guide_maps_and_cost_what_is_announced(name):
    guidance = Guidance(3.0, make_rule(name), Record())
    reason = METHOD.supports(guidance, 3)
    if reason is not None:
        assert reason.startswith(("it has no weaker network", "the network has no")) or (
            reason == guidance.rule.unsuited(DATA)
        )
        return
    nets = METHODS["imm"](CONFIG, DATA).build().requires_grad_(False)
    x = METHOD.sample(nets, labels_of(4), guidance, 3, SampleRNG(0, range(4)))
    assert x.isfinite().all()
    counted = math.ceil(sum(guidance.record.evaluations().values()) - 1e-9)
    nfe = METHOD.nfe(guidance, 3)
    assert counted <= nfe if guidance.rule.data_dependent else counted == nfe


def test_level_between_those_of_the_trajectory_has_the_end_of_the_next_lower():
    stepping = IMM(CONFIG, DATA)
    stepping.levels = METHOD.grid(3)
    high, upper, lower, zero = stepping.levels.tolist()
    wanted = {high: upper, 1.3 * upper: lower, upper: lower, 0.9 * upper: zero, lower: zero}
    nets = Gaussian()
    for sigma, end in wanted.items():
        stepping.denoise(nets, torch.ones(2, 1), torch.full((2,), sigma), labels_of(2))
        found = end_of(nets.calls[-1][3])
        torch.testing.assert_close(found, torch.full_like(found, end), rtol=1e-4, atol=1e-6)


def test_denoiser_outside_of_a_trajectory_is_the_map_to_the_level_itself():
    nets = Gaussian()
    METHOD.denoise(nets, torch.ones(2, 1), torch.full((2,), 1.5), labels_of(2))
    found = end_of(nets.calls[-1][3])
    torch.testing.assert_close(found, torch.full_like(found, 1.5), rtol=1e-4, atol=0)


def test_weights_of_edm_give_its_denoiser_at_every_end():
    edm = METHODS["edm"]
    config = edm.presets["modes1d"].config.model_copy(update={"net": CONFIG.net})
    source = edm(config, DATA).build().requires_grad_(False)
    torch.nn.init.normal_(source.model.last.weight)
    nets = METHOD.build().requires_grad_(False)
    nets.load_state_dict(METHOD.initial_weights(source.state_dict()))
    x, sigma = torch.randn(5, 1), torch.linspace(0.1, 60, 5)
    wanted = source(x, sigma, labels_of(5))
    for end in (0.0, 0.05):
        features = METHOD._features(torch.full((5,), end))
        torch.testing.assert_close(nets(x, sigma, labels_of(5), features, form="train"), wanted)


def test_equal_times_have_finite_gradients(monkeypatch):
    # Draws just below 1 can give s = t by rounding; a draw of 1 always does.
    monkeypatch.setattr(BatchRNG, "rand", lambda rng, *shape: torch.ones(B, *shape))
    nets = METHOD.build()
    torch.nn.init.normal_(nets.model.last.weight)
    batch = Batch(torch.randn(B, 1), labels_of(B))
    loss = METHOD.loss(nets, batch, Progress(0, 1), BatchRNG(0, B, 0, B))["moments"]
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in nets.parameters())
