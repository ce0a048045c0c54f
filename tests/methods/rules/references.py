"""Helpers for rules with another reference: closed forms, calls, tiny networks."""

import torch

from bench.data.find import find_dataset
from bench.training.card import make_method
from methods import SampleRNG
from methods.oracle import exact_denoised
from methods.rules import Call, Networks, Point
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from methods.spec import Mixture
from tests.bench.helpers import randomised, tiny_card

MIXTURE = Mixture(means=(((-2.0, 0.5), (1.0, 1.0)), ((2.0, 0.0),), ((0.5, -2.0),)), std=0.4)
WEAK = Mixture(means=MIXTURE.means, std=0.9)
CLASSES = len(MIXTURE.means)


def exact(mixture=MIXTURE, weak=WEAK):
    """The closed-form denoisers of a mixture, and of a second one as weaker network."""
    return Networks(
        main=lambda x, sigma, c: exact_denoised(x, sigma, c, mixture),
        null=lambda x, sigma: exact_denoised(x, sigma, torch.zeros(len(x), CLASSES), mixture),
        weak=lambda x, sigma, c: exact_denoised(x, sigma, c, weak),
    )


def one_hot(*classes, of=CLASSES):
    return torch.eye(of)[list(classes)]


def make_call(networks, x, sigma, labels, *, step=0, steps=4, stage=0, g=3.0, rng=None, state=None):
    at = Point(step, steps, stage, sigma, sigma, sigma / 2, 80.0)
    rng = SampleRNG(0, range(len(x))) if rng is None else rng
    state = {} if state is None else state
    return Call(x, x.new_tensor(sigma), at, labels, g, networks, rng, state)


def trajectory(networks, guidance, indices=range(6), steps=5):
    """Samples (B, 2) float64 of the mixture; the class follows from the index."""
    rng = SampleRNG(3, indices)
    x = 80 * rng.randn((2,))
    labels = one_hot(*(i % CLASSES for i in indices))
    return sample_guided(networks, x, karras_sigmas(steps), labels, guidance, rng)


def tiny_edm(data="digits", *pairs):
    """An edm method with a tiny network and no clipping, and the network with random weights."""
    method = make_method(tiny_card("edm", data, "clamp=false", *pairs), find_dataset(data))
    return method, randomised(method)


def edm_samples(method, nets, guidance, indices=(0, 1, 2), steps=3):
    classes = method.data.num_classes
    labels = one_hot(*(i % classes for i in indices), of=classes)
    with torch.no_grad():
        return method.sample(nets, labels, guidance, steps, SampleRNG(1, indices))
