"""A method by its denoiser, against `oracle`, whose sampling does not use that class."""

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import nn

from bench.data import DATASETS
from methods import DenoiserMethod, Guidance, Oracle, SampleRNG
from methods.nets.config import UNetConfig, build_net
from methods.oracle import OracleConfig, exact_denoised
from methods.rules import make_rule
from methods.rules.record import Record
from methods.samplers import Sampler


class Exact(DenoiserMethod[OracleConfig]):
    name, summary, config_type = "exact", "the oracle by its denoiser", OracleConfig
    presets: ClassVar[Mapping] = {}

    def build(self):
        return nn.Module()

    def loss(self, nets, batch, progress, rng):
        raise TypeError

    def denoise(self, nets, x, sigma, labels):
        assert x.dtype == sigma.dtype == labels.dtype == torch.float32
        return exact_denoised(x.double(), sigma.double(), labels, self.data.mixture).float()


DATA = DATASETS["modes2d"]().spec
ORACLE, EXACT = Oracle(OracleConfig(), DATA), Exact(OracleConfig(), DATA)


def samples(method, guidance, steps=6):
    labels = torch.eye(4)[torch.arange(8) % 4]
    return method.sample(nn.Module(), labels, guidance, steps, SampleRNG(0, range(8)))


@pytest.mark.parametrize("solver", ["heun", "euler", "dpmpp-2m"])
@pytest.mark.parametrize("rule", ["cfg", "apg", "interval", "zigzag", "higs"])
def test_samples_and_cost_under_a_rule_are_those_of_the_oracle(rule, solver):
    pair = [method.with_sampler(Sampler(solver)) for method in (ORACLE, EXACT)]
    for scale in (1.0, 3.0):
        guidance = [Guidance(scale, make_rule(rule), Record()) for _ in pair]
        reasons = [m.supports(g, 6) for m, g in zip(pair, guidance, strict=True)]
        assert reasons[0] == reasons[1]
        if reasons[0] is not None:
            continue
        wanted, found = (samples(m, g) for m, g in zip(pair, guidance, strict=True))
        # The levels, up to 80, are rounded to float32.
        assert torch.allclose(found, wanted, atol=1e-3)
        assert pair[1].nfe(guidance[1], 6) == pair[0].nfe(guidance[0], 6)
        assert guidance[1].record.evaluations() == guidance[0].record.evaluations()


class Layered(Exact):
    net = UNetConfig(channels=8, channel_mult=(1, 1), num_blocks=1, attn_resolutions=())

    def build(self):
        return build_net(self.net, self.data)


@pytest.mark.parametrize(
    ("method", "rule", "reason"),
    [
        (EXACT, "pag", "the network has no attention of methods.nets"),
        (EXACT, "skip-layer", "the network has no residual blocks of methods.nets"),
        (EXACT, "autoguidance", "it has no weaker network"),
        (Layered(OracleConfig(), DATASETS["digits"]().spec), "pag", None),
        (Layered(OracleConfig(), DATASETS["digits"]().spec), "skip-layer", None),
    ],
)
def test_rule_that_needs_layers_or_a_second_network_is_refused_without_them(method, rule, reason):
    assert method.supports(Guidance(3.0, make_rule(rule)), 6) == reason
    assert method.supports(Guidance(1.0, make_rule(rule)), 6) is None


class Wrong(Layered):
    result: ClassVar = staticmethod(lambda x: x)

    def denoise(self, nets, x, sigma, labels):
        return self.result(x)


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda x: x[:, 0], "float32 (8, 8, 8)"),
        (lambda x: x.long(), "int64 (8, 1, 8, 8)"),
        (lambda x: (x, x), "a tuple"),
        (lambda x: torch.full_like(x, 200.0), "values from 200 to 200"),
    ],
)
def test_wrong_output_of_denoise_is_refused_with_what_is_expected(result, got):
    wrong = type("Wrong", (Wrong,), {"result": staticmethod(result)})
    method = wrong(OracleConfig(), DATASETS["digits"]().spec)
    labels = torch.eye(10)[torch.arange(8)]
    with pytest.raises(ValueError, match="denoise of exact returned") as refused:
        method.sample(nn.Module(), labels, Guidance(1.0), 2, SampleRNG(0, range(8)))
    assert str(refused.value) == (
        f"denoise of exact returned {got}; it should return floats (8, 1, 8, 8) in [-1, 1], the "
        "denoised x"
    )
