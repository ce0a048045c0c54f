import numpy as np
import pytest
import torch

from methods import Guidance
from methods.rules import make_rule
from methods.rules.dry_run import evaluations
from methods.rules.record import Record
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from tests.methods.rules import toy


def numpy_version(similarity, space, until, then):
    active, update = np.ones(6, bool), np.zeros((6, 2))
    counts = []

    def guide(x, d_c, d_u, s, step, stage):
        nonlocal active, update, after
        if not stage:
            active = (np.ones(6, bool) if step == 0 else after) & (step < int(until * 9))
        own = (d_c - d_u) / s
        used = np.where(active[:, None], own, update if then == "reuse" else 0)
        counts.append(active.sum())
        if not stage:
            d_ref = d_c - s * used
            a, b = d_c, d_ref
            if space != "denoised":
                a, b = ((x - d) / s - d * (space == "v") for d in (d_c, d_ref))
            size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            after = active & ((a * b).sum(1) / size < similarity)
            update = used
        return d_c + 2 * s * used

    after = None
    return toy.integrate(guide), sum(counts) / 6


@pytest.mark.parametrize("then", ["conditional", "reuse"])
@pytest.mark.parametrize(
    ("similarity", "space", "until"),
    [
        (0.9, "denoised", 1.0),
        (0.99, "eps", 1.0),
        (0.99, "v", 1.0),
        (2.0, "eps", 0.5),
        (-1.0, "denoised", 1.0),
    ],
)
def test_against_numpy(similarity, space, until, then):
    knobs = {"similarity": similarity, "space": space, "until": until, "then": then}
    x, sigmas, labels, rng = toy.start()
    record = Record()
    guidance = Guidance(3.0, make_rule("adaptive", {"adaptive": knobs}), record)
    found = sample_guided(toy.networks(), x, sigmas, labels, guidance, rng).numpy()
    expected, nulls = numpy_version(**knobs)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert record.evaluations()["null"] == pytest.approx(nulls)
    assert 1 <= nulls < 17


def test_stopped_reference_of_a_gaussian():
    """Equal Gaussians: eps_c - eps_u = (m_u - m_c) sigma / (s^2 + sigma^2) is nearly 1 / sigma."""
    nets, sigmas = toy.gaussians(1.0, 0.6, 0.0, 0.6), torch.tensor([3.0, 1.5]).double()
    x = torch.ones(2, 1).double()
    knobs = {"similarity": -1.0, "then": "reuse"}
    rule = make_rule("adaptive", {"adaptive": knobs})
    rng = toy.start(n=2)[3]
    found = sample_guided(nets, x, sigmas, torch.eye(2), Guidance(2.0, rule), rng)
    plain = sample_guided(nets, x, sigmas, torch.eye(2), Guidance(2.0), rng)
    assert torch.equal(found, plain)  # the step that decides is still guided


def test_most_that_it_may_cost_is_announced():
    rule = make_rule("adaptive")
    assert evaluations(rule, Guidance(3.0, rule), karras_sigmas(6)) == {"main": 11, "null": 11}
    rule = make_rule("adaptive", {"adaptive": {"until": 0.5}})
    assert evaluations(rule, Guidance(3.0, rule), karras_sigmas(6)) == {"main": 11, "null": 6}
