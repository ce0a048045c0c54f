"""Guided consistency training against the guided ODE, `ct` and iGCT's step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.data import Modes1d
from methods import CT, MGCT, Batch, BatchRNG, Guidance, Progress
from methods.guidance_embedding import embed_guidance
from methods.igct_loss import GuidedDraws, guided_consistency_loss
from methods.mg_ct import guided_target
from methods.nets.config import build_net
from methods.oracle import exact_denoised
from methods.precond import EDMPrecond
from tests.methods.nets.golden import awaken

DATA = Modes1d().spec
B, K = 64, DATA.num_classes


def oracle(x, sigma, labels):
    return exact_denoised(x, sigma, labels, DATA.mixture)


def batch_of(teacher=oracle):
    generator = torch.Generator().manual_seed(1)
    x0, other = 2 * torch.randn(2, B, 1, generator=generator, dtype=torch.float64)
    return Batch(x0, torch.eye(K)[torch.arange(B) % K], other, teacher)


def draws_of(*, guided=True, w=None, r=None):
    generator = torch.Generator().manual_seed(2)
    t = torch.exp(1.5 * torch.randn(B, generator=generator, dtype=torch.float64))
    u = torch.rand(B, generator=generator, dtype=torch.float64)
    return GuidedDraws(
        t=t,
        r=t * u if r is None else torch.full_like(t, r),
        w=14 * u.flip(0) if w is None else torch.full_like(t, w),
        guided=torch.full((B,), guided),
        eps=torch.randn(B, 1, generator=generator, dtype=torch.float64),
    )


def column(v):
    return v[:, None]


@pytest.mark.parametrize("r", [None, 0.0])
def test_mean_step_is_the_euler_step_of_the_guided_ode(r):
    # x_r is affine in x0 at fixed x_t. Its mean given x_t is its value at E[x0 | x_t] = D_c.
    batch, draws = batch_of(), draws_of(r=r)
    x_t = batch.x0 + column(draws.t) * draws.eps
    d_c = oracle(x_t, draws.t, batch.labels)
    d_null = oracle(x_t, draws.t, torch.zeros(B, K))
    mean_eps = (x_t - d_c) / column(draws.t)
    pair = guided_target(replace(batch, x0=d_c), replace(draws, eps=mean_eps), "teacher")
    slope = (x_t - (d_null + column(1 + draws.w) * (d_c - d_null))) / column(draws.t)
    expected = x_t + column(draws.r - draws.t) * slope
    torch.testing.assert_close(pair.x_t, x_t, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pair.x_r, expected, rtol=1e-10, atol=1e-10)
    if r == 0:
        guided = d_null + column(1 + draws.w) * (d_c - d_null)
        torch.testing.assert_close(pair.clean, guided, rtol=1e-10, atol=1e-10)


def test_step_is_affine_in_the_sample_at_a_fixed_noisy_sample():
    batch, draws = batch_of(), draws_of()
    x_t = batch.x0 + column(draws.t) * draws.eps

    def step(x0):
        eps = (x_t - x0) / column(draws.t)
        return guided_target(replace(batch, x0=x0), replace(draws, eps=eps), "teacher").x_r

    low, high = step(batch.x0 - 1), step(batch.x0 + 2)
    torch.testing.assert_close(step(batch.x0), (2 * low + high) / 3, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("off", [{"w": 0.0}, {"guided": False}])
def test_unguided_pair_is_that_of_plain_consistency_training(off):
    batch, draws = batch_of(), draws_of(**off)
    pair = guided_target(batch, draws, "teacher")
    assert torch.equal(pair.x_t, batch.x0 + column(draws.t) * draws.eps)
    assert torch.equal(pair.x_r, batch.x0 + column(draws.r) * draws.eps)
    assert torch.equal(pair.clean, batch.x0)


class Student(nn.Module):
    """A network D = gain x that records the arguments of its calls."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.calls = []

    def forward(self, x, sigma, labels, w_embed=None, *, form, dropout):
        seed = dropout.initial_seed()
        self.calls.append((x, sigma, w_embed, form, seed, torch.is_grad_enabled()))
        return self.gain * x


def run(cls=MGCT, teacher=oracle, step=0, **settings):
    config = cls.presets["modes1d"].config.model_copy(update=settings)
    student = Student()
    terms = cls(config, DATA).loss(
        student, batch_of(teacher), Progress(step, 7), BatchRNG(0, B, 0, B)
    )
    return student, terms


@pytest.mark.parametrize("step", [0, 6])
def test_loss_without_guided_levels_equals_ct(step):
    _, plain = run(CT, step=step)
    _, shut = run(step=step, interval=(1e6, 2e6))
    assert torch.equal(shut["guided"], plain["consistency"])
    _, guided = run(step=step)
    assert (guided["guided"] - plain["consistency"]).abs().max() > 0.1


def test_loss_against_the_formula():
    student, terms = run(step=3)
    batch, rng = batch_of(), BatchRNG(0, B, 0, B)
    t = torch.exp(-1.1 + 2.0 * rng.randn()).clamp(max=80.0)
    r = (t * (1 - 2.0**-4 * (1 + 8 * torch.sigmoid(-t)))).clamp(min=0)  # stage 3 has exponent 4
    eps, w = rng.randn(1), 14.0 * rng.rand()
    x_t = batch.x0 + column(t) * eps
    gap = oracle(x_t, t, batch.labels) - oracle(x_t, t, torch.zeros(B, K))
    x_r = x_t + column(r - t) * (eps - column(w) * gap / column(t))
    (got_r, sigma_r, w_r, form_r, seed_r, grad_r), (got_t, sigma_t, w_t, form_t, seed_t, grad_t) = (
        student.calls
    )
    torch.testing.assert_close(sigma_t, t)
    torch.testing.assert_close(sigma_r, r)
    torch.testing.assert_close(got_t, x_t)
    # t and r are float32 draws, and the step is multiplied by up to 80 * 14.
    torch.testing.assert_close(got_r, x_r, rtol=1e-5, atol=1e-4)
    assert torch.equal(w_r, w_t)
    assert torch.equal(w_t, embed_guidance(w, 32, 1.0))
    assert (form_r, form_t, grad_r, grad_t) == ("train", "train", False, True)
    assert seed_r == seed_t
    norm = (0.5 * (x_t - got_r)).square().sum(1)
    expected = ((norm + 0.3**2).sqrt() - 0.3) / (t - r)
    assert (r > 0).all()
    torch.testing.assert_close(terms["guided"].detach(), expected, rtol=1e-5, atol=1e-5)
    assert terms.keys() == {"guided"}


def test_target_is_the_guided_estimate_when_the_step_ends_at_sigma_zero():
    student, terms = run(step=0)  # in the first stage low noise levels have r = 0
    (_, r, *_), (x_t, t, *_) = student.calls
    batch, rng = batch_of(), BatchRNG(0, B, 0, B)
    rng.randn(), rng.randn(1)
    w = 14.0 * rng.rand()
    gap = oracle(x_t, t, batch.labels) - oracle(x_t, t, torch.zeros(B, K))
    norm = (0.5 * x_t - batch.x0 - column(w) * gap).square().sum(1)
    expected = ((norm + 0.3**2).sqrt() - 0.3) / t
    end = r == 0
    assert 10 < end.sum() < B
    torch.testing.assert_close(terms["guided"].detach()[end], expected[end], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("r", [None, 0.0])
@pytest.mark.parametrize("guided", [True, False])
def test_decoupled_estimate_equals_igct(guided, r):
    batch, draws = batch_of(teacher=None), draws_of(guided=guided, r=r)
    pair = guided_target(batch, draws, "decoupled")
    # The specification in numpy: y = y_d if m else y_c; x_r = y + r eps + (r - t)(1 + w)(y - y_c)/t
    x0, eps = batch.x0.numpy(), draws.eps.numpy()
    t, r_, w = (column(v).numpy() for v in (draws.t, draws.r, draws.w))
    y = batch.decoupled.numpy() if guided else x0
    np.testing.assert_allclose(pair.x_t.numpy(), y + t * eps, rtol=0, atol=1e-6)
    x_r = y + r_ * eps + (r_ - t) * (1 + w) * (y - x0) / t
    np.testing.assert_allclose(pair.x_r.numpy(), x_r, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pair.clean.numpy(), y, rtol=0, atol=1e-6)
    # Also against the inputs that iGCT's loss passes to its denoiser, first at r unless that is 0
    # for all, then at t.
    seen = []
    guided_consistency_loss(
        lambda x, *_: seen.append(x) or x, batch.x0, batch.labels, batch.decoupled, draws, 0.03
    )
    assert len(seen) == (2 if r is None else 1)
    if r is None:
        torch.testing.assert_close(pair.x_r, seen[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(pair.x_t, seen[-1], rtol=0, atol=1e-6)


def test_guided_noise_levels():
    config = MGCT.presets["modes1d"].config
    t = torch.tensor([0.1, 1.0, 5.0, 11.0, 12.0, 80.0])

    def acts(**settings):
        return config.model_copy(update=settings).guided_at(t).tolist()

    assert all(acts())
    assert acts(interval=(1.0, 11.0)) == [False, True, True, True, False, False]
    assert acts(estimate="decoupled") == [False] * 4 + [True] * 2
    assert acts(estimate="decoupled", window=4.0, interval=(0.0, 12.0)) == [
        *[False] * 2,
        *[True] * 3,
        False,
    ]
    with pytest.raises(ValidationError, match="interval"):
        type(config).model_validate(config.model_dump() | {"interval": (2.0, 1.0)})


def test_teacher_is_called_once_without_gradient_and_only_for_its_estimate():
    gain, sizes = nn.Parameter(torch.tensor(0.3, dtype=torch.float64)), []

    def teacher(x, sigma, labels):
        sizes.append((len(x), len(sigma), labels.sum().item()))
        return gain * x

    _, terms = run(teacher=teacher)
    terms["guided"].mean().backward()
    assert gain.grad is None
    assert sizes == [(2 * B, 2 * B, B)]
    run(teacher=teacher, estimate="decoupled")
    assert len(sizes) == 1


def test_missing_teacher_or_decoupled_images_are_refused():
    with pytest.raises(ValueError, match="needs a teacher"):
        run(teacher=None)
    with pytest.raises(ValueError, match="needs decoupled"):
        guided_target(replace(batch_of(), decoupled=None), draws_of(), "decoupled")


def test_supports():
    method = MGCT(MGCT.presets["modes1d"].config, DATA)
    assert method.supports(Guidance(1), 1) is None
    assert method.supports(Guidance(15), 2) is None
    assert method.supports(Guidance(15.5), 1) == "trained for guidance 1 to 15, not 15.5"
    assert "1 to 2 steps" in method.supports(Guidance(2), 3)
    assert [method.nfe(Guidance(g), s) for g, s in ((1, 1), (9, 2))] == [1, 2]


def test_initial_weights_reproduce_the_teacher():
    method = MGCT(MGCT.presets["modes1d"].config, DATA)
    source = awaken(EDMPrecond(build_net(method.config.net, DATA)))
    nets = method.build()
    nets.load_state_dict(method.initial_weights(source.state_dict()), strict=True)
    assert not nets.model.map_w_embed.weight.any()
    assert all(torch.equal(nets.state_dict()[k], v) for k, v in source.state_dict().items())
