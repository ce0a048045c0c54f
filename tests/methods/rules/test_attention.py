"""PAG and SEG on U-Nets: changed attention against numpy, changed blocks, and restoring."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from methods import Guidance
from methods.nets.attention import attention_blocks, changed_attention, choose_blocks
from methods.rules import Networks, make_rule
from methods.rules.pag import PAG
from methods.rules.seg import SEG, blur_queries
from tests.methods.nets import golden
from tests.methods.rules.references import edm_samples, make_call, one_hot, tiny_edm

RULES = ["pag", "seg"]


def unet(arch):
    torch.manual_seed(0)
    return golden.awaken(golden.net(arch), seed=3).eval().requires_grad_(False)


def inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, 16, 16, generator=generator)
    return x, torch.linspace(-1, 0.5, batch), one_hot(*range(batch), of=10)


def queries_keys_values(block, x):
    """Each (B, heads, H * W, C / heads), from the published layout (head, channel, [q, k, v])."""
    b, c, h, w = x.shape
    qkv = block.qkv(block.norm2(x)).numpy().reshape(b, block.heads, c // block.heads, 3, h * w)
    return [qkv[:, :, :, i].swapaxes(-1, -2).astype(np.float64) for i in range(3)]


def attention(q, k, v):
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def blurred(q, size, sigma):
    """The blur from its definition, position by position."""
    h, w = size
    out = np.zeros_like(q)
    for i in range(h):
        for j in range(w):
            total = 0.0
            for a in range(h):
                for b in range(w):
                    weight = math.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * sigma**2))
                    total += weight
                    out[:, :, i * w + j] += weight * q[:, :, a * w + b]
            out[:, :, i * w + j] /= total
    return out


CASES = {
    "pag": (make_rule("pag"), lambda q, k, v, size: v),
    "seg": (
        make_rule("seg"),
        lambda q, k, v, size: attention(np.broadcast_to(q.mean(2, keepdims=True), q.shape), k, v),
    ),
    "seg-1.5": (
        make_rule("seg", {"seg": {"blur": 1.5}}),
        lambda q, k, v, size: attention(blurred(q, size, 1.5), k, v),
    ),
    "seg-0": (
        make_rule("seg", {"seg": {"blur": 0.0}}),
        lambda q, k, v, size: attention(q, k, v),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("arch", ["ddpmpp", "ncsnpp", "adm"])
def test_changed_block_against_numpy(arch, case):
    rule, changed = CASES[case]
    net = unet(arch)
    for block in attention_blocks(net).values():
        x = torch.randn(2, block.proj.in_channels, 3, 5, generator=torch.Generator().manual_seed(2))
        want = changed(*queries_keys_values(block, x), (3, 5))
        want = torch.from_numpy(want.swapaxes(-1, -2).reshape(x.shape)).float()
        plain = block._attend(x)
        with changed_attention(net, "all", rule.attend):
            got = block._attend(x)
        # float32 sums of at most 128 products.
        torch.testing.assert_close(got, block.proj(want), rtol=1e-4, atol=1e-5)
        assert torch.equal(block._attend(x), plain)
        if case != "seg-0":
            assert float((got - plain).abs().max()) > 1e-3


def test_infinite_blur_gives_every_position_the_mean_query():
    q, k, v = torch.randn(3, 2, 2, 12, 4, generator=torch.Generator().manual_seed(0))
    got = SEG().attend(q, k, v, (3, 4))
    torch.testing.assert_close(got, got[:, :, :1].expand_as(got))
    mean = q.mean(2, keepdim=True).expand_as(q)
    torch.testing.assert_close(blur_queries(q, (3, 4), math.inf), mean)
    torch.testing.assert_close(blur_queries(q, (3, 4), 1e4), mean)
    assert blur_queries(q, (3, 4), 0) is q


@pytest.mark.parametrize("rule", RULES)
def test_equal_positions_are_not_guided(rule):
    """Where all positions hold the same, attention from any of them to any gives the same."""
    net = unet("adm")
    for block in attention_blocks(net).values():
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(2, block.proj.in_channels, 1, 1, generator=generator).expand(-1, -1, 3, 5)
        plain = block._attend(x)
        with changed_attention(net, "all", make_rule(rule).attend):
            torch.testing.assert_close(block._attend(x), plain, rtol=1e-4, atol=1e-5)
        assert float(plain.abs().max()) > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_only_named_blocks_are_changed(rule):
    net = unet("adm")
    x, c_noise, labels = inputs()
    attend = make_rule(rule).attend
    blocks = attention_blocks(net)
    assert list(blocks) == [
        "enc.8x8_block0", "dec.8x8_in0", "dec.8x8_block0", "dec.8x8_block1",
    ]  # fmt: skip
    assert choose_blocks(net, "innermost") == [blocks["dec.8x8_in0"]]
    assert choose_blocks(net, "all") == list(blocks.values())
    outputs = {}
    for layers in ("innermost", "all", ("enc.8x8_block0",), ("dec.8x8_in0",), ()):
        with changed_attention(net, layers, attend):
            changed = [name for name, block in blocks.items() if block.attend is not None]
            outputs[layers] = net(x, c_noise, labels)
        assert len(changed) == {"innermost": 1, "all": 4}.get(layers, len(layers))
    own = net(x, c_noise, labels)
    assert torch.equal(outputs[()], own)
    assert torch.equal(outputs["innermost"], outputs["dec.8x8_in0",])
    different = ("innermost", "all", ("enc.8x8_block0",))
    for layers in different:
        assert not torch.equal(outputs[layers], own)
    assert len({float(outputs[layers].sum()) for layers in different}) == 3


@pytest.mark.parametrize("rule", RULES)
def test_attention_is_restored_after_an_error(rule):
    net = unet("ddpmpp")

    def main(x, sigma, labels):
        net(*inputs())
        raise RuntimeError("out of memory")

    x, c_noise, labels = inputs()
    before = net(x, c_noise, labels)
    call = make_call(Networks(main, module=net), x, 1.0, labels)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_rule(rule).reference(call)
    assert all(block.attend is None for block in attention_blocks(net).values())
    assert torch.equal(net(x, c_noise, labels), before)


def test_unknown_layer_is_refused_with_the_known_layers():
    with (
        pytest.raises(ValueError, match=r"named mid; this network has: enc\.8x8_block0, dec\."),
        changed_attention(unet("adm"), ("mid",), PAG().attend),
    ):
        pass
    with pytest.raises(ValidationError):
        make_rule("pag", {"pag": {"layers": "outermost"}})
    with pytest.raises(ValidationError):
        make_rule("seg", {"seg": {"blur": -1}})


@pytest.mark.parametrize("rule", RULES)
def test_edm_with_changed_attention_as_reference(rule, separate_calls):
    method, nets = tiny_edm()
    guidance = Guidance(3.0, make_rule(rule))
    assert method.supports(guidance, 3) is None
    assert method.nfe(guidance, 3) == 10
    plain, cfg = (edm_samples(method, nets, Guidance(g)) for g in (1.0, 3.0))
    guided = edm_samples(method, nets, guidance)
    assert not torch.equal(guided, plain)
    neutral = make_rule(rule, {rule: dict(type(guidance.rule).neutral)})
    assert torch.equal(edm_samples(method, nets, Guidance(3.0, neutral)), cfg)
    nothing = make_rule(rule, {rule: {"layers": []}})
    assert torch.equal(edm_samples(method, nets, Guidance(3.0, nothing)), plain)
    vectors, _ = tiny_edm("modes1d")
    assert vectors.supports(guidance, 3) == "the network has no attention"
