"""Guided consistency distillation of a closed-form teacher against numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Modes2d
from methods import Batch, BatchRNG, Guidance, GuidedCD, Progress, SampleRNG
from methods.guidance_embedding import embed_guidance
from methods.guided_cd import GuidedCDConfig, guided_teacher
from methods.nets.config import build_net
from methods.oracle import exact_denoised
from methods.precond import EDMPrecond
from methods.samplers import heun_step
from tests.methods.nets.golden import CONFIGS, SPEC, awaken, load, relative

DATA = Modes2d().spec
B = 64


class Student(nn.Module):
    """A network D = gain x that records the arguments of its calls."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.calls = []

    def forward(self, x, sigma, labels, w_embed, *, form, dropout):
        self.calls.append(
            (x, sigma, w_embed, form, dropout.initial_seed(), torch.is_grad_enabled())
        )
        return self.gain * x


def oracle(x, sigma, labels):
    return exact_denoised(x, sigma, labels, DATA.mixture)


def run(teacher=oracle, seed=0, **settings):
    config = GuidedCD.presets["modes2d"].config.model_copy(update=settings)
    method = GuidedCD(config, DATA)
    generator = torch.Generator().manual_seed(1)
    x0 = 2 * torch.randn(B, 2, generator=generator, dtype=torch.float64)
    labels = torch.eye(4)[torch.arange(B) % 4]
    student = Student().double()
    batch = Batch(x0, labels, teacher=teacher)
    terms = method.loss(student, batch, Progress(0, 1), BatchRNG(seed, B, 0, B))
    return method, student, batch, terms


def draws(method, seed=0):
    """The draws t, r, w, eps of a loss, repeated in the same order, float64."""
    rng = BatchRNG(seed, B, 0, B)
    i = rng.randint(17).numpy() + 1
    w, eps = 14.0 * rng.rand().numpy(), rng.randn(2).double().numpy()
    steps = np.arange(18) / 17
    grid = (80 ** (1 / 7) + steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    return i, grid[i - 1], grid[i], w, eps


def mixture_denoised(x, sigma, labels):
    """E[x0 | x] per row for equally likely modes of std 0.2; zero labels mean all modes."""
    means = np.array([modes[0] for modes in DATA.mixture.means])
    out = np.empty_like(x)
    for k in range(len(x)):
        own = means if not labels[k].any() else means[labels[k] > 0]
        v = 0.2**2 + sigma[k] ** 2
        log_p = -((x[k] - own) ** 2).sum(1) / (2 * v)
        p = np.exp(log_p - log_p.max())
        out[k] = (p / p.sum()) @ (own + 0.2**2 / v * (x[k] - own))
    return out


def guided_step(x, t, r, w, labels):
    """One Heun step of the guided ODE dx/dsigma = (x - D_w)/sigma."""

    def slope(x, sigma):
        d_c = mixture_denoised(x, sigma, labels)
        d_null = mixture_denoised(x, sigma, np.zeros_like(labels))
        return (x - (d_null + (1 + w)[:, None] * (d_c - d_null))) / sigma[:, None]

    h = (r - t)[:, None]
    first = slope(x, t)
    return x + h * (first + slope(x + h * first, r)) / 2


def test_loss_against_numpy():
    method, student, batch, terms = run(c_h=0.3)
    _, t, r, w, eps = draws(method)
    x0, labels = batch.x0.numpy(), batch.labels.numpy()
    x_t = x0 + t[:, None] * eps
    x_r = guided_step(x_t, t, r, w, labels)
    (got_r, sigma_r, *_), (got_t, sigma_t, *_) = student.calls
    np.testing.assert_allclose(sigma_t.numpy(), t, rtol=1e-12)
    np.testing.assert_allclose(sigma_r.numpy(), r, rtol=1e-12)
    np.testing.assert_allclose(got_t.numpy(), x_t, rtol=1e-12)
    # The weights w are float32 draws in both; all else is float64.
    np.testing.assert_allclose(got_r.numpy(), x_r, rtol=1e-6, atol=1e-6)
    norm = np.linalg.norm(0.5 * (x_t - got_r.numpy()), axis=1)
    expected = np.sqrt(norm**2 + 0.3**2) - 0.3
    np.testing.assert_allclose(terms["distil"].detach().numpy(), expected, rtol=1e-9)
    assert terms.keys() == {"distil"}


def test_both_calls_use_the_inference_form_and_share_mask_and_weight():
    method, student, _, _ = run()
    (_, _, w_r, form_r, seed_r, grad_r), (_, _, w_t, form_t, seed_t, grad_t) = student.calls
    assert (form_r, form_t) == ("eval", "eval")
    assert seed_r == seed_t
    assert (grad_r, grad_t) == (False, True)
    assert torch.equal(w_r, w_t)
    w = torch.from_numpy(draws(method)[3])
    assert torch.equal(w_t, embed_guidance(w, 32, 1.0))
    assert 0 <= w.min() < 2
    assert 12 < w.max() <= 14


def test_all_pairs_of_the_grid_are_drawn_and_the_grid_ends_are_exact():
    method = GuidedCD(GuidedCDConfig(net=CONFIGS["ncsnpp"]), SPEC)
    grid = method.grid()
    assert len(grid) == 18
    # The tolerance covers seventh roots and powers in float64.
    assert grid[[0, -1]].tolist() == pytest.approx([80.0, 0.002], rel=1e-12)
    seen = set()
    for seed in range(8):
        method, student, _, _ = run(seed=seed)
        (_, r, *_), (_, t, *_) = student.calls
        pairs = [(int((grid - a).abs().argmin()), int((grid - b).abs().argmin()))
                 for a, b in zip(t, r, strict=True)]  # fmt: skip
        assert all(b == a + 1 for a, b in pairs)
        seen |= {b for _, b in pairs}
    assert seen == set(range(1, 18))


def test_unguided_step_uses_the_conditional_branch():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.eye(4)[[0, 1, 2, 3, 0]]
    t, r = torch.full((5,), 3.0).double(), torch.full((5,), 1.0).double()
    plain = heun_step(lambda x, sigma: oracle(x, sigma, labels), x, t, r)
    w = torch.zeros(5)
    off = heun_step(guided_teacher(oracle, labels, w), x, t, r)
    torch.testing.assert_close(off, plain, rtol=1e-12, atol=1e-12)
    on = heun_step(guided_teacher(oracle, labels, w + 1), x, t, r)
    assert (on - plain).abs().max() > 0.1


def test_teacher_gets_no_gradient():
    gain = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    _, student, _, terms = run(teacher=lambda x, sigma, labels: gain * x)
    terms["distil"].mean().backward()
    assert gain.grad is None
    # Only the call at t has a gradient: d/dgain of sqrt(|gain x_t - target|^2 + c^2) - c.
    (x_r, *_), (x_t, *_) = student.calls
    delta = (0.5 * x_t - 0.5 * x_r).detach()
    expected = ((delta * x_t).sum(1) / (delta.square().sum(1) + 0.3**2).sqrt()).mean()
    assert float(student.gain.grad) == pytest.approx(float(expected), rel=1e-9)


def test_missing_teacher_is_refused():
    method, student, batch, _ = run()
    with pytest.raises(ValueError, match="needs a teacher"):
        method.loss(student, replace(batch, teacher=None), Progress(0, 1), BatchRNG(0, B, 0, B))


@pytest.mark.parametrize("arch", ["ncsnpp", "adm"])
def test_network_and_samples_against_the_published_code(arch):
    method = GuidedCD(GuidedCDConfig(net=CONFIGS[arch], guidance_dim=32), SPEC)
    nets = method.build()
    g = load(f"cd_{arch}", nets)
    w = g["w"]
    w_embed = embed_guidance(w, 32)
    with torch.no_grad():
        out = nets(g["x"], g["sigma"], g["labels"], w_embed, form="eval")
        # An independent implementation differs by 1e-6 in float32.
        assert relative(out, g["out_eval"]) < 1e-5
        rng, k = SampleRNG(0, range(len(w))), 0
        got = method.sample(nets, g["labels"], Guidance.from_w(float(w[k])), 2, rng)[k]
        draws = SampleRNG(0, [k])
        x = 80 * draws.randn(SPEC.shape)
        one = w_embed[k : k + 1], g["labels"][k : k + 1]
        first = nets(x, torch.tensor(80.0), one[1], one[0], form="eval").clamp(-1, 1)
        x = first + 1.0882 * draws.randn(SPEC.shape)
        second = nets(x, torch.tensor(1.0882), one[1], one[0], form="eval").clamp(-1, 1)
    assert relative(got, second[0]) < 1e-5


def test_supports():
    method = GuidedCD(GuidedCDConfig(net=CONFIGS["ncsnpp"]), SPEC)
    assert method.supports(Guidance(1), 1) is None
    assert method.supports(Guidance(15), 2) is None
    assert method.supports(Guidance(15.5), 1) == "trained for guidance 1 to 15, not 15.5"
    assert "1 to 2 steps" in method.supports(Guidance(2), 3)
    assert [method.nfe(Guidance(g), s) for g, s in ((1, 1), (9, 2))] == [1, 2]


def test_initial_weights_reproduce_the_teacher():
    config = GuidedCD.presets["modes2d"].config
    method, source = GuidedCD(config, DATA), awaken(EDMPrecond(build_net(config.net, DATA)))
    augmented = source.state_dict() | {"model.map_augment.weight": torch.ones(1)}
    initial = method.initial_weights(augmented)
    nets = method.build()
    nets.load_state_dict(initial, strict=True)
    assert not nets.model.map_w_embed.weight.any()
    assert all(torch.equal(nets.state_dict()[k], v) for k, v in source.state_dict().items())
