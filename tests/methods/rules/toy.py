"""Closed-form denoisers of two Gaussian classes in the plane, in torch and numpy."""

from itertools import pairwise

import numpy as np
import torch

from methods.guidance import Guidance
from methods.oracle import exact_denoised
from methods.rng import SampleRNG
from methods.rules import Networks, make_rule
from methods.rules.dry_run import evaluations
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from methods.spec import Mixture

MIXTURE = Mixture(means=(((2.0, 1.0),), ((-2.0, 0.5),)), std=0.3)


def networks():
    none = torch.zeros(1, 2)
    return Networks(
        main=lambda x, sigma, c: exact_denoised(x, sigma, c, MIXTURE),
        null=lambda x, sigma: exact_denoised(x, sigma, none.expand(len(x), 2), MIXTURE),
    )


def start(n=6, steps=9):
    """Noisy state, noise levels, labels and random generator for n samples."""
    sigmas = karras_sigmas(steps, 0.01, 20.0)
    rng = SampleRNG(3, range(n))
    labels = torch.eye(2)[torch.arange(n) % 2]
    return 20.0 * rng.randn((2,)).double(), sigmas, labels, rng


def denoised(x, sigma, label):
    """Posterior mean (n, 2) by Bayes' rule for class (n,); class -1 means both classes."""
    means = np.array([modes[0] for modes in MIXTURE.means])
    variance = MIXTURE.std**2 + sigma**2
    if label[0] >= 0:
        weight = np.eye(2)[np.asarray(label, dtype=int)]
    else:
        weight = np.exp(-((x[:, None] - means) ** 2).sum(2) / (2 * variance))
        weight = weight / weight.sum(1, keepdims=True)
    pulled = means + MIXTURE.std**2 / variance * (x[:, None] - means)
    return (weight[:, :, None] * pulled).sum(1)


def integrate(guide, second=True, start=start):
    """Heun or Euler samples (n, 2) in numpy under `guide(x, d_c, d_u, sigma, step, stage)`."""
    x, sigmas, labels, _ = start()
    x, label, levels = x.numpy(), labels.argmax(1).numpy(), sigmas.tolist()

    def slope(x, s, step, stage):
        d_c, d_u = denoised(x, s, label), denoised(x, s, -np.ones(len(x)))
        return (x - guide(x, d_c, d_u, s, step, stage)) / s

    for step, (s, t) in enumerate(pairwise(levels)):
        d = slope(x, s, step, 0)
        if second and t > 0:
            d = (d + slope(x + (t - s) * d, t, step, 1)) / 2
        x = x + (t - s) * d
    return x


def sample(name, g=3.0, sigmas=None, **knobs):
    """Samples (n, 2) of the toy under a rule, as numpy."""
    x, levels, labels, rng = start()
    guidance = Guidance(g, make_rule(name, {name: knobs}))
    levels = levels if sigmas is None else sigmas
    return sample_guided(networks(), x, levels, labels, guidance, rng).numpy()


def gaussians(m_c, s_c, m_u, s_u):
    """The denoisers of a Gaussian per branch, with any number of values."""

    def posterior(x, sigma, mean, std):
        return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)

    return Networks(
        main=lambda x, sigma, labels: posterior(x, sigma, m_c, s_c),
        null=lambda x, sigma: posterior(x, sigma, m_u, s_u),
    )


def walk(step):
    """Samples (n, 2) in numpy; `step(x, cond, null, s, t, k)` maps x at s to t, denoisers given."""
    x, sigmas, labels, _ = start()
    x, label = x.numpy(), labels.argmax(1).numpy()
    for k, (s, t) in enumerate(pairwise(sigmas.tolist())):
        x = step(
            x, lambda x, s: denoised(x, s, label), lambda x, s: denoised(x, s, -np.ones(len(x))),
            s, t, k,
        )  # fmt: skip
    return x


def cfg_euler(x, cond, null, s, t, g=3.0):
    """CFG's Euler step in numpy."""
    d_u = null(x, s)
    guided = d_u + g * (cond(x, s) - d_u)
    return guided + t / s * (x - guided)


def counted(name, g=3.0, steps=6, **knobs):
    """Evaluations by branch on `steps` levels."""
    rule = make_rule(name, {name: knobs})
    return evaluations(rule, Guidance(g, rule), karras_sigmas(steps))


def of_gaussians(name, nets, sigmas, x, g=3.0, **knobs):
    """Samples of one-dimensional Gaussians from `x` (n, 1), as numpy."""
    return of_rule(make_rule(name, {name: knobs}), nets, sigmas, x, g)


def of_rule(rule, nets, sigmas, x, g=3.0):
    """Samples of one-dimensional Gaussians from `x` (n, 1) under a rule, as numpy."""
    labels, rng = torch.ones(len(x), 1), SampleRNG(0, range(len(x)))
    return sample_guided(nets, x, sigmas, labels, Guidance(g, rule), rng).numpy()
