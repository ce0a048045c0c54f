"""Random draws of rules, per index and once per step, and their number of evaluations."""

import pytest
import torch

from methods import Guidance, SampleRNG
from methods.rules import make_rule
from methods.rules.draws import once_a_step
from tests.methods.rules.references import (
    edm_samples,
    exact,
    make_call,
    one_hot,
    tiny_edm,
    trajectory,
)

DRAWING = ["icg", "cads", "tsg"]


def test_both_stages_of_a_step_share_one_draw():
    rng, state = SampleRNG(0, range(3)), {}
    x, labels = torch.zeros(3, 2), one_hot(0, 1, 2)
    seen = []
    for step in range(2):
        for stage in range(2):
            call = make_call(
                exact(), x, 1.0, labels, step=step, stage=stage, rng=rng, state=state
            )  # fmt: skip
            seen.append(once_a_step(call, "mine", lambda: rng.randn((4,))))
    fresh = SampleRNG(0, range(3))
    first, second = fresh.randn((4,)), fresh.randn((4,))
    for got, want in zip(seen, (first, first, second, second), strict=True):
        assert torch.equal(got, want)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", DRAWING)
def test_sample_depends_on_its_index_only(name):
    guidance = Guidance(2.0, make_rule(name))
    whole = trajectory(exact(), guidance, range(7))
    parts = [trajectory(exact(), guidance, part) for part in ([0, 1, 2], [3], [6, 5, 4])]
    # Sums over the modes may be taken in a different order for another batch size.
    torch.testing.assert_close(torch.cat(parts[:2]), whole[:4], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts[2].flip(0), whole[4:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["autoguidance", "cads", "icg", "pag", "seg", "tsg"])
def test_nfe_equals_the_number_of_evaluations(name):
    method, _ = tiny_edm()
    method = method.with_weak(method.config)
    nets = method.build().eval()
    seen = []
    for net in (nets.model, nets.weak.model):
        net.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    for g in (1.0, 2.0):
        seen.clear()
        guidance = Guidance(g, make_rule(name))
        edm_samples(method, nets, guidance)
        assert sum(seen) == 3 * method.nfe(guidance, 3)
