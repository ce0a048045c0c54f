"""One network call for the conditional and the null branch."""

import dataclasses

import pytest
import torch

from bench.system.memory import Batches
from methods import Guidance, SampleRNG
from methods.rules import CFG, Call, Composite, Interval, make_rule, trajectory
from methods.rules.trajectory import sample_guided
from tests.methods.rules.calls import point
from tests.methods.rules.references import tiny_edm
from tests.methods.rules.toy import networks, start


@pytest.fixture
def shared():
    """The toy's closed form in float64, and the numbers of rows of its calls."""
    rows, exact = [], networks()

    def main(x, sigma, labels):
        rows.append(len(x))
        return exact.main(x, sigma, labels)

    return dataclasses.replace(exact, main=main, shared=True), rows


class _OwnReference(CFG):
    def reference(self, call):
        return call.null()


def guided(nets, rule, g=3.0, n=6):
    x, sigmas, labels, rng = start(n)
    return sample_guided(nets, x, sigmas, labels, Guidance(g, rule), rng)


@pytest.mark.parametrize("name", ["apg", "cads", "cfg", "cfgpp", "fbg", "interval", "interval+apg"])
def test_one_call_equals_two(shared, name, monkeypatch):
    nets, rows = shared
    one = guided(nets, make_rule(name))
    assert 12 in rows
    rows.clear()
    monkeypatch.setattr(trajectory, "CPU_VALUES", 0)
    two = guided(nets, make_rule(name))
    assert set(rows) == {6}
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_one_call_only_where_the_null_branch_is_needed(shared):
    nets, rows = shared
    guided(nets, CFG(), g=1.0)
    assert rows == [6] * 17
    rows.clear()
    guided(nets, CFG())
    assert rows == [12] * 17
    rows.clear()
    guided(nets, Interval())
    assert set(rows) == {6, 12}


@pytest.mark.parametrize("rule", [_OwnReference(), Composite([Interval(), _OwnReference()])])
def test_own_reference_gets_separate_calls(shared, rule):
    nets, rows = shared
    assert torch.isfinite(guided(nets, rule)).all()
    assert set(rows) == {6}


def test_large_batch_on_a_cpu_gets_separate_calls(shared, monkeypatch):
    nets, rows = shared
    monkeypatch.setattr(trajectory, "CPU_VALUES", 2 * 6 * 2)
    guided(nets, CFG(), n=6)
    assert set(rows) == {12}
    rows.clear()
    guided(nets, CFG(), n=7)
    assert set(rows) == {7}


def test_gradients_pass_through_both_branches(shared):
    nets, _ = shared
    x, _, labels, rng = start()
    found = []
    for joint in (True, False):
        state = x.clone().requires_grad_()
        weights = (labels.double() + 0.1).requires_grad_()  # 0 and 1 have no slope here
        call = Call(state, x.new_tensor(1.5), point(), weights, 3.0, nets, rng)
        d_c, d_null = call.both(weights) if joint else (call.denoise(), call.null())
        for output, inputs in ((d_c, (state, weights)), (d_null, (state,))):
            found.append(torch.autograd.grad(output.square().sum(), inputs, retain_graph=True))
    for one, two in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        assert all(gradient.abs().max() > 0 for gradient in one)


def test_second_network_gets_calls_of_its_own():
    method, _ = tiny_edm()
    paired = method.with_null(method.config)
    nets = paired.build().eval()
    rows = {"model": [], "null": []}
    for part, seen in rows.items():
        getattr(nets, part).register_forward_hook(
            lambda module, given, out, seen=seen: seen.append(len(given[0]))
        )
    with torch.inference_mode():
        paired.sample(nets, torch.eye(10)[:3], Guidance(2.0), 3, SampleRNG(0, range(3)))
    assert rows == {"model": [3] * 5, "null": [3] * 5}


def test_batch_is_halved_if_both_branches_do_not_fit():
    method, nets = tiny_edm()

    def refuse(module, given):
        if len(given[0]) > 6:
            raise torch.OutOfMemoryError("no")

    labels = torch.eye(10)[:5]

    def work(size):
        parts = torch.arange(5).split(size)
        return torch.cat([
            method.sample(nets, labels[part], Guidance(2.0), 3, SampleRNG(0, part.tolist()))
            for part in parts
        ])  # fmt: skip

    with torch.inference_mode():
        whole = work(5)
        batches = Batches(5)
        hook = nets.model.register_forward_pre_hook(refuse)
        halved = batches.run("x", work)
        hook.remove()
    assert batches.size == 3
    torch.testing.assert_close(halved, whole, rtol=1e-5, atol=1e-5)
