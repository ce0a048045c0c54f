"""Continuous-time consistency against closed forms of Gaussian data, numpy and differences."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import DATASETS, Modes1d
from methods import SCD, SCT, Batch, BatchRNG, Guidance, Progress
from methods.forward_mode import value_and_derivative
from methods.nets.config import build_net
from methods.precond import EDMPrecond
from methods.trigflow import LossWeight, tangent
from tests.methods.embedded import slowest
from tests.methods.gaussian import consistent, denoised, slope
from tests.methods.nets.golden import awaken

DATA = Modes1d().spec
MEAN, STD, SD = 0.7, 0.4, 2.01
B = 64


def points(n=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0, eps, u = torch.randn(3, n, 1, generator=generator, dtype=torch.float64)
    return MEAN + STD * x0, eps, torch.exp(-0.5 + 2 * u[:, 0])


def column(v):
    return v[:, None]


def exact(x, sigma):
    return consistent(x, column(sigma), MEAN, STD)


def test_tangent_is_zero_at_the_exact_consistency_function():
    x0, eps, sigma = points()
    x = x0 + column(sigma) * eps
    velocity = slope(x, column(sigma), MEAN, STD)
    value, found = tangent(exact, x, sigma, velocity, SD, 1.0)
    torch.testing.assert_close(value, exact(x, sigma))
    # Rounding of float64 through one derivative, times 1 / cos(a) of up to 1e3.
    assert found.abs().max() < 1e-11
    # An untrained network, F = 0, and a wrong velocity do not satisfy it.
    untrained = tangent(lambda x, s: x * column(SD**2 / (s**2 + SD**2)), x, sigma, velocity, SD, 1)
    assert untrained[1].abs().mean() > 0.1
    assert tangent(exact, x, sigma, 1.1 * velocity, SD, 1.0)[1].abs().mean() > 0.01


@pytest.mark.parametrize("warmed", [0.0, 0.3, 1.0])
def test_tangent_against_the_published_formula(warmed):
    # The paper's terms in y, a and F, with dF/da along the line y = cos x0 + sin z by differences.
    x0, eps, sigma = (v.numpy() for v in points())
    sigma = column(sigma)
    a, z = np.arctan(sigma / SD), SD * eps

    def F(y, a):  # noqa: N802
        return np.sin(1.3 * y) + 0.5 * y * np.cos(a) - a**2

    def along(a):
        return F((np.cos(a) * x0 + np.sin(a) * z) / SD, a)

    h, cos, sin = 1e-4, np.cos(a), np.sin(a)
    derivative = (8 * (along(a + h) - along(a - h)) - along(a + 2 * h) + along(a - 2 * h)) / (
        12 * h
    )
    y, velocity = cos * x0 + sin * z, cos * z - sin * x0
    wanted = -(cos**2) * (SD * along(a) - velocity)
    wanted -= warmed * (cos * sin * y + SD * cos * sin * derivative)

    def denoise(x, sigma):
        a = torch.atan(column(sigma) / SD)
        y = a.cos() * x
        f = torch.sin(1.3 * y / SD) + 0.5 * y / SD * a.cos() - a**2
        return a.cos() * y - SD * a.sin() * f

    x0, eps, sigma = points()
    _, found = tangent(denoise, x0 + column(sigma) * eps, sigma, eps, SD, warmed)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-7, atol=1e-9)


def test_mean_tangent_of_single_samples_is_zero_at_the_exact_function():
    n = 200_000
    x0, eps, _ = points(n)
    sigma = torch.full((n,), 0.8, dtype=torch.float64)
    x = x0 + column(sigma) * eps
    _, found = tangent(exact, x, sigma, eps, SD, 1.0)
    error = 5 * float(found.std()) / math.sqrt(n)
    assert float(found.std()) > 0.1
    assert abs(float(found.mean())) < error
    assert abs(float((found * (x - x.mean())).mean())) < error * float(x.std())


@pytest.mark.parametrize("name", ["modes1d", "digits"])
def test_derivative_through_the_networks_with_dropout_against_differences(name):
    spec = DATASETS[name]().spec
    config = SCT.presets[name].config
    config = config.model_copy(update={"net": config.net.model_copy(update={"dropout": 0.3})})
    nets = awaken(SCT(config, spec).build()).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, 5, *spec.shape, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0], dtype=torch.float64)
    labels = torch.eye(spec.num_classes).double()[torch.arange(5) % spec.num_classes]
    rng = BatchRNG(0, 5, 0, 5)

    def denoise(x, sigma):
        return nets(x, sigma, labels, form="train", dropout=rng.dropout("denoiser"))

    def at(h):
        return denoise(x + h * v, sigma + h)

    with pytest.MonkeyPatch.context() as patch:
        # The networks get float32 inputs, whose rounding would hide the difference.
        patch.setattr(torch, "float32", torch.float64)
        value, got = value_and_derivative(denoise, (x, sigma), (v, torch.ones_like(sigma)))
        h = 1e-3
        wanted = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        torch.testing.assert_close(value, denoise(x, sigma))
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


class Student(nn.Module):
    """A network D = gain x that records the arguments of its calls."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.calls = []

    def forward(self, x, sigma, labels, w_embed=None, *, form, dropout):
        self.calls.append((w_embed, form, dropout.initial_seed(), torch.is_grad_enabled()))
        return self.gain * x


def run(cls, nets, teacher=None, progress=Progress(3, 10), n=B, **settings):  # noqa: B008
    config = cls.presets["modes1d"].config.model_copy(update=settings)
    x0, _, _ = points(n, seed=1)
    labels = torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2]
    batch = Batch(x0, labels, teacher=teacher)
    return x0, cls(config, DATA).loss(nets, batch, progress, BatchRNG(0, n, 0, n))["tangent"]


@pytest.mark.parametrize("floor", [None, 0.1])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_loss_and_gradient_of_sct_against_numpy(floor, power):
    nets = Student()
    x0, loss = run(SCT, nets, tangent_floor=floor, weight_power=power, tangent_warmup=0.6)
    loss.sum().backward()
    rng = BatchRNG(0, B, 0, B)
    sigma = np.exp(-0.3 + 1.8 * rng.randn().double().numpy())[:, None]
    x0, eps = x0.numpy(), rng.randn(1).double().numpy()
    a, x, r = np.arctan(sigma / SD), x0 + sigma * eps, 0.5  # step 3 of 10, of a warm-up of 6
    # D = x / 2, and dx/da = eps sd / cos^2.
    g = r * np.cos(a) * 0.5 * eps * SD / np.cos(a) ** 2
    g += (1 - r) * np.cos(a) ** 2 / np.sin(a) * (0.5 * x - x0)
    if floor is not None:
        g /= np.abs(g) + floor
    weight = 1 / sigma**power
    np.testing.assert_allclose(loss.detach().numpy(), (weight * g**2)[:, 0], rtol=1e-5)
    gradient = (weight * 2 * g * x / (SD * np.sin(a))).sum()
    assert float(nets.gain.grad) == pytest.approx(gradient, rel=1e-5)
    assert [call[1] for call in nets.calls] == ["train"] * 2
    assert [call[3] for call in nets.calls] == [False, True]
    assert len({call[2] for call in nets.calls}) == 1


def test_learned_weight_has_the_expected_loss_as_its_optimum():
    nets = Student()
    _, plain = run(SCT, nets)
    nets.add_module("loss_weight", LossWeight())
    _, first = run(SCT, nets, learned_weight=True)
    torch.testing.assert_close(first, plain)  # L = 0
    with torch.no_grad():
        nets.loss_weight.linear.bias.fill_(0.7)
    _, then = run(SCT, nets, learned_weight=True)
    torch.testing.assert_close(then, plain * math.exp(-0.7) + 0.7)
    then.mean().backward()
    wanted = 1 - plain.mean() * math.exp(-0.7)
    assert float(nets.loss_weight.linear.bias.grad) == pytest.approx(
        float(wanted.detach()), rel=1e-4
    )


class Wrong(nn.Module):
    """The exact consistency function plus two errors of free size that vanish at sigma = 0."""

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = nn.Parameter(torch.tensor(sizes, dtype=torch.float64))

    def forward(self, x, sigma, labels, w_embed=None, *, form, dropout):
        share = column(sigma / (1 + sigma))
        error = self.sizes[0] + self.sizes[1] * (x - MEAN) / column(1 + sigma)
        return exact(x, sigma) + share * error


def test_exact_function_is_the_optimum_of_sct():
    def gradient(*sizes):
        nets = Wrong(*sizes)
        _, loss = run(SCT, nets, n=100_000, progress=Progress(9, 10), p_mean=0.0, p_std=0.5)
        return torch.autograd.grad(loss.mean(), nets.sizes)[0]

    # In the mean over 100,000 samples; errors of .2 show the scale.
    assert gradient(0.0, 0.0).abs().max() < 0.01
    assert gradient(0.2, 0.0)[0] > 0.1
    assert gradient(0.0, 0.2)[1] > 0.05


MEANS = (1.2, -0.4)
NULL = 0.3


def teacher(x, sigma, labels):
    """Classes N(MEANS[k], STD^2); the unconditional density is N(NULL, STD^2) for all labels 0."""
    known = labels.sum(1) > 0
    mean = torch.where(known, labels @ torch.tensor(MEANS).to(labels), NULL)
    return denoised(x, column(sigma), column(mean), STD)


class Guided(nn.Module):
    """The exact consistency function of the guided teacher, at the scale of the features.

    With equal spreads CFG is the denoiser of N(null + g (mean - null), STD^2).
    """

    def forward(self, x, sigma, labels, features, *, form, dropout):
        g = 1 + slowest(features, 1.0)
        mean = labels @ torch.tensor(MEANS).to(labels)
        return consistent(x, column(sigma), column(NULL + g * (mean - NULL)), STD)


def test_loss_of_scd_is_zero_at_the_exact_guided_function():
    _, loss = run(SCD, Guided(), teacher, Progress(9, 10))
    # w is decoded from float32 features, at up to 1e-4 of its value.
    assert loss.abs().max() < 1e-5
    wrong = lambda x, sigma, labels: teacher(x, sigma, labels) + 0.1  # noqa: E731
    assert run(SCD, Guided(), wrong, Progress(9, 10))[1].abs().max() > 1e-3


def test_teacher_of_scd_is_required_and_gets_no_gradient():
    gain = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    _, loss = run(SCD, Student(), lambda x, sigma, labels: gain * x)
    loss.mean().backward()
    assert gain.grad is None
    with pytest.raises(ValueError, match="needs a teacher"):
        run(SCD, Student())


def test_levels_are_lognormal_and_clipped():
    config = SCT.presets["cifar10"].config
    sigma = config.levels(BatchRNG(0, 100_000, 0, 100_000)).log()
    assert float(sigma.mean()) == pytest.approx(-1.0, abs=0.02)
    assert float(sigma.std()) == pytest.approx(1.4, abs=0.02)
    wide = config.model_copy(update={"p_std": 9.0}).levels(BatchRNG(0, 1000, 0, 1000))
    assert wide.aminmax() == pytest.approx((0.002, 800.0))


def test_derivative_has_its_full_weight_after_the_published_number_of_steps():
    for cls, steps in ((SCT, 350_000), (SCD, 500_000)):
        preset = cls.presets["cifar10"]
        assert preset.train.iterations == steps
        found = [preset.config.warmed(Progress(k, steps)) for k in (0, 5_000, 10_000, steps - 1)]
        assert found == pytest.approx([0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("cls", [SCT, SCD])
def test_initial_weights_reproduce_the_denoiser(cls):
    method = cls(cls.presets["modes1d"].config, DATA)
    source = awaken(EDMPrecond(build_net(method.config.net, DATA), sigma_data=SD))
    nets = method.build()
    nets.load_state_dict(method.initial_weights(source.state_dict()), strict=True)
    x0, eps, sigma = points()
    x, labels = (x0 + column(sigma) * eps).float(), torch.eye(2)[torch.arange(B) % 2]
    features = method.embed(torch.full((B,), 3.0))
    found = nets(x, sigma.float(), labels, features, form="train")
    torch.testing.assert_close(found, source(x, sigma.float(), labels))


def test_supported_guidance():
    sct, scd = (cls(cls.presets["modes1d"].config, DATA) for cls in (SCT, SCD))
    assert sct.supports(Guidance(1), 2) is None
    assert sct.supports(Guidance(2), 1).startswith("sct takes no guidance: CFG needs")
    assert scd.supports(Guidance(15), 2) is None
    assert scd.supports(Guidance(15.5), 1) == "trained for guidance 1 to 15, not 15.5"
    assert "1 to 2 steps" in scd.supports(Guidance(2), 3)
