"""Helpers that call a rule directly or sample under it with the closed-form denoiser."""

import torch

from bench.data import DATASETS
from bench.data.convert import one_hot
from methods import Guidance, Oracle, SampleRNG
from methods.oracle import exact_denoised
from methods.rules import Call, Networks, Point

STEPS = 8


def point(step=3, steps=10, stage=0, start=1.0, end=0.5):
    return Point(step, steps, stage, end if stage else start, start, end, sigma_max=80.0)


def outputs(*shape, seed=0):
    """The outputs (4, *shape) of two branches, and the state."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, *shape, generator=generator, dtype=torch.float64).unbind()


def guide(rule, d_cond, d_ref, x=None, *, g=3.0, at=None, state=None):
    """The guided output that a sampler computes from both outputs under the rule."""
    at = point() if at is None else at
    x = torch.zeros_like(d_cond) if x is None else x
    networks = Networks(main=lambda x, sigma, labels: d_cond)
    rng = SampleRNG(0, range(len(x)))
    labels = one_hot(torch.zeros(len(x), dtype=torch.int64), 2)
    state = {} if state is None else state
    call = Call(x, x.new_tensor(at.sigma), at, labels, g, networks, rng, state)
    guided = rule.combine(d_cond, d_ref, rule.weigh(g, d_cond, d_ref, call), call)
    return rule.finish(guided, d_cond, call)


def oracle(name="modes2d"):
    return Oracle(Oracle.presets[name].config, DATASETS[name]().spec)


def sample(rule, g=3.0, steps=STEPS):
    """Samples (4, 2) of the closed-form denoiser, one per class."""
    labels = one_hot(torch.arange(4), 4)
    return oracle().sample(
        torch.nn.Module(), labels, Guidance(g, rule), steps, SampleRNG(0, range(4))
    )


def branches(x, sigma):
    """Both outputs (4, 2) of the closed-form denoiser at a state, one row per class, in numpy."""
    x, mixture = torch.from_numpy(x), oracle().mixture
    labels, level = one_hot(torch.arange(4), 4), torch.tensor(sigma, dtype=torch.float64)
    pair = (exact_denoised(x, level, c, mixture) for c in (labels, torch.zeros_like(labels)))
    return tuple(d.numpy() for d in pair)
