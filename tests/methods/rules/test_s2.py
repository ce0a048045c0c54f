import numpy as np
import torch
from torch import nn

from methods.nets.mlp import MLPBlock
from methods.nets.skipping import skippable_blocks
from methods.rng import derive_seed
from methods.rules import Networks, make_rule
from tests.methods.rules.calls import outputs, point
from tests.methods.rules.references import tiny_edm
from tests.methods.rules.test_skip_layer import call_of


def stack(blocks):
    return nn.ModuleList(MLPBlock(3, 0.0) for _ in range(blocks))


def test_against_a_network_whose_block_is_replaced_by_hand():
    _, nets = tiny_edm()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    call = call_of(Networks(nets, module=nets.model), x, point())
    (name,) = make_rule("s2").drawn(nets.model, derive_seed(0, "s2", call.at.step))
    with torch.no_grad():
        d_cond = call.denoise()
        found = make_rule("s2").finish(x, d_cond, call)
        block = nets.model.get_submodule(name)
        handle = block.register_forward_hook(lambda _, given, __: given[0])
        expected = x + 0.25 * (d_cond - nets(x, call.sigma, call.labels))
        handle.remove()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_skipped_output_equal_to_the_reference_adds_to_the_scale():
    d_cond, d_ref, h = outputs(3)
    module = stack(1)

    def main(x, sigma, labels):
        return d_ref if module[0](h, h) is h else d_cond

    call = call_of(Networks(main, module=module), torch.zeros_like(d_cond), point())
    rule = make_rule("s2", {"s2": {"weight": 0.75}})
    found = rule.finish(rule.combine(d_cond, d_ref, 3.0, call), d_cond, call)
    assert torch.allclose(found, d_ref + 3.75 * (d_cond - d_ref), rtol=1e-12)


def test_draws_cover_the_middle_of_the_blocks_evenly():
    net, rule = stack(20), make_rule("s2")
    draws = [rule.drawn(net, seed) for seed in range(2000)]
    assert {len(set(names)) for names in draws} == {2}
    counts = {name: sum(name in names for names in draws) for name in skippable_blocks(net)}
    inner = [str(i) for i in range(2, 18)]
    assert [name for name, count in counts.items() if count] == inner
    assert all(abs(counts[name] - 250) < 5 * 250**0.5 for name in inner)


def test_a_network_of_few_blocks_loses_one_that_is_not_the_first():
    for blocks in (2, 3):
        drawn = {tuple(make_rule("s2").drawn(stack(blocks), seed)) for seed in range(50)}
        assert drawn == {(str(i),) for i in range(1, blocks)}
    assert make_rule("s2").drawn(stack(1), 0) == ["0"]
