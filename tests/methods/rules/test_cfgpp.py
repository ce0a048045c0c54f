import numpy as np
import pytest
import torch

from methods.guidance import Guidance
from methods.rules import make_rule
from methods.rules.dry_run import evaluations
from methods.rules.trajectory import sample_guided

from . import toy


def sample(g, **knobs):
    x, sigmas, labels, rng = toy.start()
    rule = make_rule("cfgpp", {"cfgpp": knobs})
    return sample_guided(toy.networks(), x, sigmas, labels, Guidance(g, rule), rng).numpy()


def euler(step):
    """An independent Euler loop; `step` maps x, both outputs and both levels to the next x."""
    x, sigmas, labels, _ = toy.start()
    x, label = x.numpy(), labels.argmax(1).numpy()
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        d_c = toy.denoised(x, s, label)
        d_u = toy.denoised(x, s, -np.ones(len(x)))
        x = step(x, d_c, d_u, s, t)
    return x


def plus_plus(lam):
    def step(x, d_c, d_u, s, t):
        return d_u + lam * (d_c - d_u) + t * (x - d_u) / s

    return step


@pytest.mark.parametrize("g", [2.5, 7.5, 25.0])
def test_against_the_published_algorithm(g):
    # Above g = 12.5 the interpolation becomes an extrapolation.
    np.testing.assert_allclose(sample(g), euler(plus_plus(g / 12.5)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("g", [3.0, 8.0])
def test_neutral_knobs_give_cfg_with_euler_steps(g):
    def cfg(x, d_c, d_u, s, t):
        return x + (t - s) * (x - (d_u + g * (d_c - d_u))) / s

    rule = make_rule("cfgpp")
    np.testing.assert_allclose(sample(g, **rule.neutral), euler(cfg), rtol=1e-9, atol=1e-9)


def test_step_equals_cfg_at_a_scale_that_depends_on_the_step():
    def cfg(x, d_c, d_u, s, t):
        w = 0.6 / (1 - t / s)
        return x + (t - s) * (x - (d_u + w * (d_c - d_u))) / s

    np.testing.assert_allclose(sample(7.5), euler(cfg), rtol=1e-9, atol=1e-9)


def test_last_step_returns_the_interpolation():
    x, _, labels, rng = toy.start()
    sigmas = torch.tensor([20.0, 0.0], dtype=torch.float64)
    rule = make_rule("cfgpp")
    found = sample_guided(toy.networks(), x, sigmas, labels, Guidance(5.0, rule), rng)
    d_c = toy.denoised(x.numpy(), 20.0, labels.argmax(1).numpy())
    d_u = toy.denoised(x.numpy(), 20.0, -np.ones(len(x)))
    np.testing.assert_allclose(found.numpy(), d_u + 0.4 * (d_c - d_u), rtol=1e-9)


def test_step_at_lambda_one_adds_unconditional_noise_to_the_conditional_output():
    x, _, labels, rng = toy.start()
    sigmas = torch.tensor([20.0, 5.0, 0.0], dtype=torch.float64)
    seen = []
    nets = toy.networks()

    def main(x, sigma, c):
        seen.append(x)
        return nets.main(x, sigma, c)

    watched = type(nets)(main=main, null=nets.null)
    sample_guided(watched, x, sigmas, labels, Guidance(12.5, make_rule("cfgpp")), rng)
    d_c = toy.denoised(x.numpy(), 20.0, labels.argmax(1).numpy())
    d_u = toy.denoised(x.numpy(), 20.0, -np.ones(len(x)))
    np.testing.assert_allclose(seen[1].numpy(), d_c + (x.numpy() - d_u) / 4, rtol=1e-9)


def test_two_calls_per_step():
    _, sigmas, _, _ = toy.start(steps=9)
    found = evaluations(make_rule("cfgpp"), Guidance(4.0), sigmas)
    assert found == {"main": 9, "null": 9}


def test_composes_with_a_rule_that_turns_guidance_off():
    class Never(type(make_rule("cfg"))):
        name = "never"

        def scale(self, g, at):
            return 1.0

    from methods.rules import Composite

    x, sigmas, labels, rng = toy.start()
    rule = Composite([Never(), make_rule("cfgpp")])
    found = sample_guided(toy.networks(), x, sigmas, labels, Guidance(9.0, rule), rng)
    conditional = euler(lambda x, d_c, d_u, s, t: d_c + t * (x - d_c) / s)
    np.testing.assert_allclose(found.numpy(), conditional, rtol=1e-9, atol=1e-9)


def test_invalid_knobs_are_refused():
    with pytest.raises(ValueError, match="ratio"):
        make_rule("cfgpp", {"cfgpp": {"ratio": 0.0}})
    assert make_rule("cfgpp").settings() == {"cfgpp.ratio": 12.5, "cfgpp.noise": "null"}
