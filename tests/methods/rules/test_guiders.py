"""Guiders of diffusers as rules, and our rules against them: two independent implementations."""

import pytest
import torch

from methods.guidance import Guidance
from methods.rng import SampleRNG
from methods.rules import APG, CFG, TCFG, CFGZero, Rescale, make_rule, register_rule
from methods.rules.base import Call, Networks, Point
from methods.rules.dry_run import evaluations
from methods.rules.registry import RULES
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from tests.bench.helpers import bench, rows_of

pytest.importorskip("diffusers")

from methods.rules.guiders import diffusers_guiders, diffusers_rule, guider_rule

G, SIGMA = 5.0, 2.0


def outputs(shape=(4, 3, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    x, cond, ref = (torch.randn(shape, generator=generator).double() for _ in range(3))
    return SIGMA * x, cond, ref


def call_at(x, step=3):
    levels = tuple(karras_sigmas(10).tolist())
    point = Point(step, 10, 0, SIGMA, SIGMA, 1.0, 80.0, levels)
    labels = torch.eye(len(x), 4)
    networks = Networks(main=lambda x, sigma, c: x)
    rng = SampleRNG(0, range(len(x)))
    return Call(x, x.new_tensor(SIGMA), point, labels, G, networks, rng)


def combined(rule, shape=(4, 3, 8, 8)):
    x, cond, ref = outputs(shape)
    call = call_at(x)
    return rule.finish(rule.combine(cond, ref, G, call), cond, call)


def guider(name, **knobs):
    kind = diffusers_rule(f"diffusers-{name}")
    return kind(kind.knobs_type(**knobs))


def ours(kind, **knobs):
    return kind(kind.knobs_type(**knobs))


SPACES = ("denoised", "eps", "v")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 5)])
def test_cfg_is_the_same_in_every_space(space, shape):
    found = combined(guider("ClassifierFreeGuidance", space=space), shape)
    torch.testing.assert_close(found, combined(CFG(), shape))
    original = guider("ClassifierFreeGuidance", space=space, use_original_formulation=True)
    torch.testing.assert_close(combined(original, shape), combined(CFG(), shape))


# The last value is the largest difference over the largest output. TCFG's guider works in float32,
# and that of zero-star adds 1e-8 to a norm.
CASES = [
    ("TangentialClassifierFreeGuidance", {}, TCFG, {}, 1e-5),
    (
        "ClassifierFreeGuidance",
        {"guidance_rescale": 0.7},
        Rescale,
        {"phi": 0.7},
        1e-12,
    ),
    (
        "AdaptiveProjectedGuidance",
        {"use_original_formulation": True, "eta": 0.3, "adaptive_projected_guidance_rescale": 4.0},
        APG,
        {"eta": 0.3, "beta": 0.0, "threshold": 4.0 / (3 * 8 * 8) ** 0.5},
        1e-12,
    ),
    (
        "AdaptiveProjectedGuidance",
        {"eta": 0.3, "adaptive_projected_guidance_rescale": 4.0},
        APG,
        {"eta": 0.3, "beta": 0.0, "threshold": 4.0 / (3 * 8 * 8) ** 0.5, "base": "ref"},
        1e-12,
    ),
    (
        "ClassifierFreeZeroStarGuidance",
        {"zero_init_steps": 0},
        CFGZero,
        {"zero_share": 0.0},
        1e-6,
    ),
]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("name", "knobs", "kind", "own", "gap"), CASES)
def test_guider_equals_our_rule_of_the_same_formula(name, knobs, kind, own, gap, space):
    found = combined(guider(name, space=space, **knobs))
    expected = combined(ours(kind, space=space, **own))
    torch.testing.assert_close(found, expected, rtol=0, atol=gap * float(expected.abs().max()))
    assert not torch.allclose(found, combined(CFG()), rtol=1e-2)


def test_guider_in_another_space_is_another_rule():
    name = "TangentialClassifierFreeGuidance"
    found = [combined(guider(name, space=space)) for space in SPACES]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a] - found[b]).norm() > 0.1 * found[a].norm()


def shrink(x, sigma, labels):
    wide = sigma.reshape(-1, *[1] * (x.ndim - 1)) if sigma.ndim else sigma
    mean = labels.to(x).sum(1).reshape(-1, *[1] * (x.ndim - 1))
    return (x + wide**2 * mean) / (1 + wide**2)


NETWORKS = Networks(
    main=shrink, null=lambda x, sigma: shrink(x, sigma, x.new_zeros(len(x), 1)), shared=True
)


def sampled(rule, indices=range(4)):
    rng = SampleRNG(0, indices)
    x = 80.0 * rng.randn((3, 8, 8))
    labels = torch.eye(4)[list(indices)]
    sigmas = karras_sigmas(6)
    return sample_guided(NETWORKS, x, sigmas, labels, Guidance(3.0, rule), rng, solver="euler")


def test_momentum_of_a_guider_runs_along_the_trajectory():
    found = sampled(
        guider(
            "AdaptiveProjectedGuidance",
            use_original_formulation=True,
            adaptive_projected_guidance_momentum=-0.5,
            adaptive_projected_guidance_rescale=0.0,
            eta=0.5,
        )
    )
    expected = sampled(ours(APG, beta=-0.5, threshold=None, eta=0.5))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    without = sampled(ours(APG, beta=0.0, threshold=None, eta=0.5))
    assert (without - expected).abs().max() > 0.1


def test_trajectories_share_no_state():
    rule = guider("AdaptiveProjectedGuidance", adaptive_projected_guidance_momentum=-0.5)
    whole = sampled(rule)
    torch.testing.assert_close(sampled(rule, [2, 3]), whole[2:], rtol=1e-5, atol=1e-5)


def test_steps_of_a_guider_are_those_of_the_sampler():
    half = guider("ClassifierFreeGuidance", stop=0.5)
    steps = []
    for step in (4, 5):
        x, cond, ref = outputs()
        steps.append(torch.equal(half.combine(cond, ref, G, call_at(x, step)), cond))
    assert steps == [False, True]
    assert evaluations(half, Guidance(3.0), karras_sigmas(6)) == {"main": 11, "null": 11}


def test_guiders_of_changed_networks_are_refused():
    assert {"ClassifierFreeGuidance", "TangentialClassifierFreeGuidance"} <= set(
        diffusers_guiders()
    )
    for name in ("SkipLayerGuidance", "PerturbedAttentionGuidance", "AutoGuidance"):
        assert name not in diffusers_guiders()
        with pytest.raises(ValueError, match=name):
            diffusers_rule(f"diffusers-{name}")


class Doubled:
    """Twice the scale: a guider of one's own."""

    _input_predictions = ("pred_cond", "pred_uncond")

    def __init__(self, guidance_scale=1.0, factor=2.0):
        self.guidance_scale, self.factor = guidance_scale, factor

    def set_state(self, step, num_inference_steps, timestep):
        pass

    def prepare_inputs(self, data):
        pass

    def forward(self, pred_cond, pred_uncond):
        pred = pred_uncond + self.factor * self.guidance_scale * (pred_cond - pred_uncond)
        return type("Output", (), {"pred": pred})


def test_own_guider_is_a_rule(monkeypatch):
    monkeypatch.setattr(Doubled, "_input_predictions", ["pred_cond", "pred_uncond"])
    monkeypatch.setitem(RULES, "doubled", None)
    del RULES["doubled"]
    register_rule(guider_rule(Doubled, "doubled"))
    rule = make_rule("doubled", {"doubled": {"factor": 1.5, "space": "eps"}})
    x, cond, ref = outputs()
    expected = ref + 1.5 * G * (cond - ref)
    torch.testing.assert_close(rule.combine(cond, ref, G, call_at(x)), expected)
    assert rule.settings() == {"doubled.space": "eps", "doubled.factor": 1.5}
    assert rule.summary == "Twice the scale: a guider of one's own."


def test_sweep_and_verify_take_a_guider(tmp_path):
    name = "TangentialClassifierFreeGuidance"
    options = ("-m", "oracle", "-d", "modes2d", "-g", "3", "-n", "40", "--results", tmp_path)
    rules = ("--rule", f"cfg,diffusers:{name}", "--knob", f"diffusers:{name}.space=eps")
    ran = bench("sweep", *options, *rules, "--metric", "w1")
    assert ran.code == 0, ran.err
    (row,) = [r for r in rows_of(tmp_path, "oracle") if r.rule]
    assert row.rule == f"diffusers-{name}"
    assert row.knobs[f"{row.rule}.space"] == "eps"
    assert row.knobs[f"{row.rule}.diffusers"] == __import__("diffusers").__version__
    del RULES[row.rule]
    again = bench("verify", "--results", tmp_path)
    assert "3 equal bit for bit" in again.out
    del RULES[row.rule]
    for given, message in (
        (f"diffusers:{name}s", f"Unknown guider of diffusers '{name}s'. Did you mean '{name}'"),
        ("diffusers:SkipLayerGuidance", "combines other predictions than D_c and D_null"),
    ):
        ran = bench("sweep", *options, "--rule", given)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert message in ran.err
