"""The iGCT losses against the published code with the same random draws."""

import numpy as np
import pytest
import torch

from methods.base import Progress
from methods.consistency import (
    consistency_target,
    pseudo_huber,
    smaller_sigma,
    stage_at,
    training_sigma,
)
from methods.guidance_embedding import embed_guidance
from methods.igct_loss import (
    GuidedDraws,
    guided_consistency_loss,
    guided_probability,
    inverse_consistency_loss,
    reconstruction_loss,
)
from methods.precond import IGCTPrecond
from tests.methods.nets.golden import load, net, relative

C_H, SIGMA_MIN, SIGMA_MAX, SIGMA_DATA, DIM = 0.03, 0.002, 80.0, 0.5, 32
WINDOW = (11.0, 14.3)
# Golden tensors are results of other float32 code, stored with their tolerance.
TOLERANCE = 1e-5


@pytest.fixture(params=[0, 1, 3])
def golden(request):
    pair = IGCTPrecond(net("ncsnpp"), net("ncsnpp", DIM))
    tensors = load(f"igct_loss_ncsnpp_stage{request.param}", pair)
    assert int(tensors["stage"]) == request.param
    return pair.requires_grad_(False), tensors


def networks(pair):
    def denoise(x, sigma, labels, w):
        return pair.denoise(x, sigma, labels, embed_guidance(w, DIM), form="train")

    def noise(x, sigma, labels):
        return pair.noise(x, sigma, labels, form="train")

    return denoise, noise


def draws(tensors):
    t = training_sigma(tensors["log_t_normal"].flatten(), -1.1, 2.0, SIGMA_MAX)
    r = smaller_sigma(t, int(tensors["stage"]), 2.0, 8.0, 1.0)
    mask = tensors["guided_mask"].flatten().bool()
    return GuidedDraws(t=t, r=r, w=14.0 * tensors["w_uniform"], guided=mask, eps=tensors["eps"])


def test_noise_levels_and_smaller_sigma(golden):
    _, g = golden
    d = draws(g)
    assert relative(d.t, g["t_gen"]) < TOLERANCE
    got = smaller_sigma(g["map_t"], int(g["stage"]), 2.0, 8.0, 1.0)
    assert torch.allclose(got, g["map_r"], rtol=TOLERANCE, atol=1e-7)
    if int(g["stage"]) == 0:
        assert torch.equal(got, torch.zeros_like(got))


def test_guided_probability_across_the_window(golden):
    _, g = golden
    got = guided_probability(g["prob_t"], WINDOW, 2.0, 0.9)
    assert torch.allclose(got, g["prob"], rtol=TOLERANCE, atol=1e-7)
    assert got.min() == 0
    assert got.max() == pytest.approx(0.9)
    at_draws = guided_probability(draws(g).t, WINDOW, 2.0, 0.9)
    assert torch.allclose(at_draws, g["guided_prob"].flatten(), rtol=TOLERANCE, atol=1e-6)


def test_guided_consistency_loss(golden):
    pair, g = golden
    d = draws(g)
    assert d.guided.any()
    assert not d.guided.all()
    denoise, _ = networks(pair)
    got = guided_consistency_loss(denoise, g["images"], g["labels"], g["decoupled"], d, C_H)
    assert relative(got, g["loss_gen"]) < TOLERANCE


def test_inverse_consistency_loss(golden):
    pair, g = golden
    d = draws(g)
    a, b = d.r.clamp(min=SIGMA_MIN), d.t.clamp(min=SIGMA_MIN)
    assert relative(a, g["t_inv"]) < TOLERANCE
    _, noise = networks(pair)
    got = inverse_consistency_loss(
        noise, g["images"], g["labels"], a, b, g["eps"], C_H, SIGMA_DATA / SIGMA_MAX
    )
    assert relative(got, g["loss_inv"]) < TOLERANCE


def test_reconstruction_loss(golden):
    pair, g = golden
    denoise, noise = networks(pair)
    got = reconstruction_loss(
        denoise, noise, g["images"], g["labels"], g["eps"], C_H, SIGMA_MIN, SIGMA_MAX
    )
    assert relative(got, g["loss_recon"]) < TOLERANCE


def test_guidance_weight_changes_guided_rows_only(golden):
    pair, g = golden
    d = draws(g)
    denoise, _ = networks(pair)

    def blind(x, sigma, labels, w):
        return denoise(x, sigma, labels, torch.zeros_like(w))

    def loss(w):
        other = GuidedDraws(t=d.t, r=d.r, w=w, guided=d.guided, eps=d.eps)
        return guided_consistency_loss(blind, g["images"], g["labels"], g["decoupled"], other, C_H)

    moved = (loss(d.w) - loss(d.w + 1)).abs() > 1e-4
    # Rows with r = 0 have the clean image as their target, which does not depend on w.
    assert torch.equal(moved, d.guided & (d.r > 0))


def test_target_has_no_gradient_and_both_calls_share_the_noise():
    calls = []

    def denoise(x, sigma, labels, w):
        calls.append((x, torch.is_grad_enabled()))
        return x

    x0, eps = torch.zeros(2, 3), torch.ones(2, 3)
    d = GuidedDraws(
        t=torch.tensor([2.0, 4.0]),
        r=torch.tensor([1.0, 3.0]),
        w=torch.tensor([5.0, 5.0]),
        guided=torch.tensor([False, True]),
        eps=eps,
    )
    guided_consistency_loss(denoise, x0, torch.zeros(2, 1), x0 + 10, d, C_H)
    (x_r, grad_r), (x_t, grad_t) = calls
    assert (grad_r, grad_t) == (False, True)
    assert torch.equal(x_t, torch.tensor([[2.0] * 3, [14.0] * 3]))
    # Guided: y_d + r eps + (r - t)(1 + w)(y_d - y_c)/t = 10 + 3 - 6 * 10 / 4.
    assert torch.equal(x_r, torch.tensor([[1.0] * 3, [-2.0] * 3]))


def test_pseudo_huber_against_numpy_and_at_zero():
    delta = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    norms = np.linalg.norm(delta.numpy().reshape(5, -1).astype(np.float64), axis=1)
    for c in (0.0, 0.03, 1.0):
        # float32 against float64
        assert np.allclose(pseudo_huber(delta, c), np.sqrt(norms**2 + c**2) - c, rtol=1e-5)
    for c in (0.0, 0.3):
        zero = torch.zeros(1, 4, requires_grad=True)
        pseudo_huber(zero, c).sum().backward()
        assert torch.equal(zero.grad, torch.zeros(1, 4))


def test_stages_are_equal_parts_of_training():
    stages = [stage_at(Progress(step, 700), 2, 5) for step in range(700)]
    assert [stages.count(s) for s in (2, 3, 4, 5)] == [175] * 4
    assert stages == sorted(stages)


def test_stages_with_a_fixed_number_of_steps_and_an_open_last_stage():
    stages = [stage_at(Progress(step, 260), 0, 6, 40) for step in range(260)]
    assert [stages.count(s) for s in range(7)] == [40] * 6 + [20]
    assert stage_at(Progress(900, 1000), 0, 6, 40) == 6


@pytest.mark.parametrize("levels", [[0.0, 0.0], [0.0, 0.7]])
def test_consistency_target_is_clean_at_zero_and_evaluated_only_if_needed(levels):
    clean, noisy, calls = torch.randn(2, 3), torch.randn(2, 3, requires_grad=True), []

    def denoise():
        calls.append(1)
        return 2 * noisy

    r = torch.tensor(levels)
    found = consistency_target(denoise, r, clean)
    expected = torch.where(r[:, None] > 0, 2 * noisy.detach(), clean)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert len(calls) == int(max(levels) > 0)
