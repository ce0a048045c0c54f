"""Guidance and noise on their way from a sweep to the networks."""

import math

import numpy as np
import pytest
import torch

from bench.data.find import find_dataset
from bench.sweep.generate import Diverged, generate
from bench.training.card import make_card, make_method
from methods import Guidance, SampleRNG
from methods import oracle as oracle_module
from tests.bench.helpers import randomised, tiny_card

CPU = torch.device("cpu")
DATA = find_dataset("modes1d")
SCALES = (1.0, 2.0, 8.0)


def made(name, data="modes1d", *pairs):
    return make_method(tiny_card(name, data, *pairs), find_dataset(data))


def supported(method, guidance, steps):
    return method.supports(Guidance(guidance), steps) is None


class Constant(torch.nn.Module):
    """EDM's denoiser with D_c = class + 1 and D_null = -1, whatever x and sigma; keeps labels."""

    def __init__(self):
        super().__init__()
        self.labels = []

    def forward(self, x, sigma, labels):
        self.labels.append(labels.clone())
        value = torch.where(labels.sum(1) > 0, labels.argmax(1) + 1.0, torch.tensor(-1.0))
        return value[:, None].expand(len(x), 1).to(x.dtype)


@pytest.mark.parametrize("g", [1.0, 1.5, 3.0, 14.0])
def test_edm_extrapolates_from_the_null_branch_by_g(g):
    nets = Constant()
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = made("edm").sample(nets, labels, Guidance(g), 5, SampleRNG(0, [0, 1]))
    # With a constant denoiser the last, Euler step to sigma = 0 lands on D itself.
    expected = [[-1 + g * (c - (-1))] for c in (1.0, 2.0)]
    # float64 state from 80 down to values of order 10, given as float32.
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6)
    null_rows = ~torch.cat(nets.labels).any(1)
    assert null_rows.sum() == (0 if g == 1.0 else 9 * len(labels))
    assert (~null_rows).sum() == 9 * len(labels)


@pytest.mark.parametrize("g", [1.0, 2.5, 13.0])
def test_igct_gets_w_equal_to_g_minus_1(g):
    method = made("igct")
    nets = randomised(method)
    fed = []
    nets.dec.register_forward_hook(lambda module, given, out: fed.append(given))
    method.sample(nets, torch.eye(2), Guidance(g), 2, SampleRNG(0, [0, 1]))
    dim, scale = method.config.guidance_dim, method.config.guidance_scale
    freqs = 10000.0 ** -(np.arange(dim // 2) / (dim // 2 - 1))
    angle = scale * (g - 1) * freqs
    expected = np.concatenate([np.sin(angle), np.cos(angle)])
    assert len(fed) == 2
    for given in fed:
        # float32 angles up to 14 resolve 1e-6.
        np.testing.assert_allclose(given[3].numpy(), np.tile(expected, (2, 1)), atol=5e-6)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("g", [1.0, 3.0])
@pytest.mark.parametrize("name", ["edm", "ct", "igct", "oracle"])
def test_nfe_is_the_number_of_network_calls(name, g, steps, monkeypatch):
    method = made(name) if name != "oracle" else make_method(make_card("oracle", data=DATA), DATA)
    if not supported(method, g, steps):
        assert name in ("ct", "igct")
        return
    images = []

    def count(x):
        images.append(len(x))

    nets = randomised(method)
    for net in nets.children():
        net.register_forward_hook(lambda module, given, out: count(given[0]))
    exact = oracle_module.exact_denoised
    monkeypatch.setattr(
        oracle_module, "exact_denoised", lambda x, *rest: (count(x), exact(x, *rest))[1]
    )
    labels = torch.eye(2)[[0, 1, 0]]
    method.sample(nets, labels, Guidance(g), steps, SampleRNG(0, range(3)))
    assert sum(images) == 3 * method.nfe(Guidance(g), steps)


def first_states(name, g, data):
    """What the first network call of a cell of 6 samples sees, divided by sigma_max."""
    method = made(name, data)
    nets = randomised(method)
    seen = []

    def watch(module, given, out):
        seen.append(given[0])

    net = nets.dec if name == "igct" else nets.model
    net.register_forward_hook(watch)
    steps = 3 if name == "edm" else 1
    for _ in generate(method, nets, Guidance(g), steps, 4, 6, batch=6, device=CPU):
        pass
    c = method.config
    return seen[0][:6] * math.hypot(c.sigma_max, c.sigma_data) / c.sigma_max


@pytest.mark.parametrize("data", ["modes1d", "digits"])
def test_all_methods_and_scales_share_the_noise_of_an_index(data):
    noise = SampleRNG(4, range(6)).randn(find_dataset(data).spec.shape)
    for name in ("edm", "ct", "igct"):
        for g in SCALES:
            if not supported(made(name, data), g, 1):
                continue
            # Networks see c_in x in float32: two roundings of values of order 1.
            torch.testing.assert_close(first_states(name, g, data), noise, rtol=1e-6, atol=1e-7)


def everything(method, nets, g, steps, batch, n=22):
    parts = list(generate(method, nets, Guidance(g), steps, 0, n, batch=batch, device=CPU))
    x, y = (torch.cat(p) for p in zip(*parts, strict=True))
    assert torch.equal(y, torch.arange(n) % method.data.num_classes)
    return x


@pytest.mark.parametrize("data", ["modes1d", "digits"])
@pytest.mark.parametrize("name", ["edm", "ct", "igct"])
def test_samples_are_the_same_for_any_batch_size(name, data):
    method = made(name, data)
    nets = randomised(method)
    steps = 4 if name == "edm" else 2
    for g in (1.0, 8.0):
        if not supported(method, g, steps):
            continue
        whole = everything(method, nets, g, steps, 22)
        assert len(torch.unique(whole)) > 20
        for batch in (1, 3, 7):
            x = everything(method, nets, g, steps, batch)
            if data == "digits":
                assert torch.equal(x, whole)
            else:
                # Products of matrices are summed in an order that depends on their height.
                torch.testing.assert_close(x, whole, rtol=1e-5, atol=1e-6)


def test_generate_refuses_wrong_shapes_and_infinite_samples(monkeypatch):
    method = made("ct")
    nets = randomised(method)

    def run():
        return list(generate(method, nets, Guidance(1.0), 1, 0, 5, batch=2, device=CPU))

    monkeypatch.setattr(method, "sample", lambda *_: torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"ct gave samples \(2, 3\), not \(2, 1\)"):
        run()
    bad = torch.tensor([[1.0], [float("inf")]])
    monkeypatch.setattr(method, "sample", lambda *_: bad)
    with pytest.raises(Diverged, match="1 of samples 0 to 1 are not finite"):
        run()
