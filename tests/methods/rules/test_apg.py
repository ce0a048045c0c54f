from itertools import pairwise

import numpy as np
import pytest
import torch

from methods import SampleRNG
from methods.rules import APG, CFG, make_rule
from methods.rules.apg import APGKnobs
from methods.samplers import karras_sigmas
from tests.methods.rules.calls import STEPS, branches, guide, outputs, point, sample

FREE = {"eta": 1.0, "beta": 0.0, "threshold": None}


def projected(c, update, g, eta, radius):
    """APG of one sample, as a vector, from its averaged update."""
    update = update * min(1.0, radius / np.linalg.norm(update))
    parallel = np.dot(update, c) / np.dot(c, c) * c
    return c + (g - 1) * (update - parallel + eta * parallel)


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
@pytest.mark.parametrize(("eta", "threshold"), [(0.0, 0.1), (0.3, 0.1), (0.3, 50.0)])
def test_against_numpy(shape, eta, threshold):
    d_cond, d_ref, _ = outputs(*shape)
    rule = APG(APGKnobs(eta=eta, threshold=threshold))
    guided = guide(rule, d_cond, d_ref).flatten(1).numpy()
    c, u = d_cond.flatten(1).numpy(), d_ref.flatten(1).numpy()
    radius = threshold * np.sqrt(c.shape[1])
    want = [projected(*pair, 3.0, eta, radius) for pair in zip(c, c - u, strict=True)]
    np.testing.assert_allclose(guided, want, rtol=1e-10)


def test_default_radius_is_the_published_one_for_latents():
    assert APGKnobs().threshold * np.sqrt(4 * 64 * 64) == pytest.approx(2.5)


def test_equals_cfg_without_projection_momentum_and_threshold():
    assert torch.allclose(sample(APG(APGKnobs(**FREE))), sample(CFG()), rtol=1e-6, atol=1e-6)


def test_update_with_eta_0_is_orthogonal_and_within_the_radius():
    d_cond, d_ref, _ = outputs(3, 4, 4)
    update = (guide(APG(APGKnobs(threshold=0.1)), d_cond, d_ref, g=2.0) - d_cond).flatten(1)
    assert torch.allclose((update * d_cond.flatten(1)).sum(1), update.new_zeros(4), atol=1e-12)
    assert (update.norm(dim=1) <= 0.1 * 48**0.5).all()
    assert (update.norm(dim=1) > 0).all()


def test_output_of_zero_gives_a_finite_result():
    d_cond, d_ref, _ = outputs(2)
    guided = guide(APG(), torch.zeros_like(d_cond), torch.zeros_like(d_ref))
    assert torch.equal(guided, torch.zeros_like(d_cond))


def test_both_stages_add_to_the_average_of_the_previous_step():
    rule, state = APG(APGKnobs(eta=1.0, beta=-0.5, threshold=None)), {}
    updates = {}
    for seed, (step, stage) in enumerate([(3, 0), (3, 1), (4, 0), (4, 1), (7, 0)]):
        d_cond, d_ref, _ = outputs(2, seed=seed)
        at = point(step, stage=stage)
        guided = guide(rule, d_cond, d_ref, g=2.0, at=at, state=state)
        updates[step, stage] = (d_cond - d_ref, guided - d_cond)
    average = {step: torch.zeros(4, 2, dtype=torch.float64) for step in (2, 3, 4)}
    average[3] = updates[3, 0][0]
    average[4] = updates[4, 0][0] - 0.5 * average[3]
    before = {3: average[2], 4: average[3], 7: average[4]}
    for (step, stage), (update, got) in updates.items():
        assert torch.allclose(got, update - 0.5 * before[step], rtol=1e-12), (step, stage)


@pytest.mark.parametrize("name", ["apg", "interval+apg"])
def test_trajectory_against_numpy(name):
    """An independent loop: APG inside the interval, D_c outside."""
    beta, eta, radius, g = -0.75, 0.2, 0.3 * np.sqrt(2), 3.0
    low, high = (0.28, 8.0) if name == "interval+apg" else (0.0, np.inf)
    average = np.zeros((4, 2))

    def slope(x, sigma, start):
        c, u = branches(x, sigma)
        if not low < start <= high:
            return (x - c) / sigma, None
        update = c - u + beta * average
        d = [projected(*pair, g, eta, radius) for pair in zip(c, update, strict=True)]
        return (x - np.array(d)) / sigma, update

    x = 80.0 * SampleRNG(0, range(4)).randn((2,)).double().numpy()
    for start, end in pairwise(karras_sigmas(STEPS).tolist()):
        first, update = slope(x, start, start)
        x_next = x + (end - start) * first
        if end > 0:
            x_next = x + (end - start) * (first + slope(x_next, end, start)[0]) / 2
        x, average = x_next, average if update is None else update
    knobs = {"apg": {"eta": eta, "beta": beta, "threshold": 0.3},
             "interval": {"low": 0.28, "high": 8.0}}  # fmt: skip
    np.testing.assert_allclose(sample(make_rule(name, knobs)).numpy(), x, rtol=1e-5, atol=1e-6)
