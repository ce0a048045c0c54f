import numpy as np
import pytest
import torch
from torch import nn

from methods import SampleRNG
from methods.nets.mlp import MLPBlock
from methods.nets.skipping import skippable_blocks
from methods.rules import Call, Networks, make_rule
from tests.methods.rules.calls import outputs, point
from tests.methods.rules.references import tiny_edm


def call_of(networks, x, at, classes=10):
    rng, labels = SampleRNG(0, range(len(x))), torch.eye(classes)[: len(x)]
    return Call(x, x.new_tensor(at.sigma), at, labels, 3.0, networks, rng)


@pytest.mark.parametrize("blocks", ["middle", "named"])
def test_against_a_network_whose_block_is_replaced_by_hand(blocks):
    _, nets = tiny_edm()
    names = list(skippable_blocks(nets.model))
    chosen = names[len(names) // 2] if blocks == "middle" else names[0]
    rule = make_rule(
        "skip-layer", {"skip-layer": {"blocks": blocks if blocks == "middle" else (chosen,)}}
    )
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    call = call_of(Networks(nets, module=nets.model), x, point(step=2, steps=20))
    with torch.no_grad():
        d_cond = call.denoise()
        found = rule.finish(x, d_cond, call)
        block = nets.model.get_submodule(chosen)
        handle = block.register_forward_hook(lambda _, given, __: given[0])
        expected = x + 2.8 * (d_cond - nets(x, call.sigma, call.labels))
        handle.remove()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found, x, rtol=0, atol=1e-3)


def test_skipped_output_equal_to_the_reference_adds_to_the_scale():
    d_cond, d_ref, h = outputs(3)
    module = nn.ModuleList([MLPBlock(3, 0.0)])

    def main(x, sigma, labels):
        return d_ref if module[0](h, h) is h else d_cond

    call = call_of(Networks(main, module=module), torch.zeros_like(d_cond), point(2, 20))
    rule = make_rule("skip-layer")
    found = rule.finish(rule.combine(d_cond, d_ref, 3.0, call), d_cond, call)
    assert torch.allclose(found, d_ref + 5.8 * (d_cond - d_ref), rtol=1e-12)


def test_window_has_the_floors_of_diffusers():
    d_cond, d_ref, _ = outputs(3)
    networks = Networks(lambda x, sigma, labels: d_ref)
    acting = []
    for step in range(28):
        call = call_of(networks, d_ref, point(step, 28))
        if not torch.equal(make_rule("skip-layer").finish(d_cond, d_cond, call), d_cond):
            acting.append(step)
    assert acting == [1, 2, 3, 4]


def test_names_survive_the_text_of_a_row_and_unknown_ones_are_refused():
    rule = make_rule("skip-layer", {"skip-layer": {"blocks": '["nowhere"]'}})
    assert rule.settings()["skip-layer.blocks"] == '["nowhere"]'
    _, nets = tiny_edm()
    x = torch.zeros(2, 1, 8, 8)
    call = call_of(Networks(nets, module=nets.model), x, point(step=2, steps=20))
    with pytest.raises(ValueError, match="no block named nowhere that can be skipped"):
        rule.finish(x, x, call)
