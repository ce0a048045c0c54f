import numpy as np
import pytest
import torch

from methods.rules import make_rule
from tests.methods.rules import toy


@pytest.mark.parametrize("last", ["cfgpp", "cfg"])
@pytest.mark.parametrize(
    ("schedule", "loops"),
    [
        (((0.0, 0.125, 2), (0.375, 0.125, 1)), {0: (1, 2), 3: (4, 1)}),
        (((1 / 9, 4 / 9, 3), (7 / 9, 1.0, 1)), {1: (5, 3), 7: (8, 1)}),
    ],
)
def test_against_numpy(schedule, loops, last):
    levels = toy.start()[1].tolist()

    def step(x, cond, null, s, t, k):
        index, count = loops.get(k, (0, 0))
        for _ in range(count):
            far = levels[index]
            down = toy.cfg_euler(x, cond, null, s, far)
            x = down + (s - far) * (down - null(down, far)) / far
        if last == "cfg":
            return toy.cfg_euler(x, cond, null, s, t)
        d_u = null(x, s)
        return d_u + 0.7 * (cond(x, s) - d_u) + t * (x - d_u) / s

    found = toy.sample("foresight", schedule=schedule, step=last, lam=0.7)
    np.testing.assert_allclose(found, toy.walk(step), rtol=1e-8, atol=1e-8)


def test_no_loops_give_cfgpp():
    found = toy.sample("foresight", schedule=(), lam=0.8)
    np.testing.assert_allclose(found, toy.sample("cfgpp", 10.0), rtol=1e-9, atol=1e-9)


def test_loop_at_high_noise_shifts_the_state_by_the_closed_form():
    """By (sigma / sigma_far - 1) g (D_c - D_null) for each iteration."""
    nets, x = toy.gaussians(1.0, 0.5, 0.0, 0.5), torch.tensor([[-30.0], [20.0]]).double()
    sigmas, g, loops = torch.tensor([60.0, 50.0, 40.0]).double(), 5.0, 2
    found, plain = (
        toy.of_gaussians("foresight", nets, sigmas, x, g, schedule=((0.0, 0.5, count),))
        for count in (loops, 0)
    )
    # In the two steps of CFG++ that follow, the shift is noise, which shrinks with the level.
    shift = (60 / 50 - 1) * g * loops * 40 / 60
    np.testing.assert_allclose(found - plain, shift, rtol=2e-3)


def test_published_schedule_costs_50_steps_and_returns_without_the_class():
    assert toy.counted("foresight", steps=40) == {"main": 40 + 5, "null": 40 + 2 * 5}


def test_schedule_survives_the_text_of_a_row():
    rule = make_rule("foresight")
    text = {k.removeprefix("foresight."): v for k, v in rule.settings().items()}
    assert isinstance(text["schedule"], str)
    assert make_rule("foresight", {"foresight": text}).knobs == rule.knobs
