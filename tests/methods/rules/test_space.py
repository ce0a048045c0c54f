"""Rules in other prediction spaces, and the same rules of diffusers, whose guiders see no x."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods import Guidance
from methods.rules import make_rule
from methods.rules.space import back, into
from tests.methods.rules.calls import guide, oracle, point
from tests.methods.rules.references import make_call

SPACES = ("denoised", "eps", "v", "score")
RULES = ("apg", "mambo-g", "tcfg", "rescale", "cfg-zero")
SIGMA, G = 2.0, 5.0


def tensors(seed=0):
    """State and the outputs of both branches, (4, 3, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(3, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    return 5**0.5 * draws[0], draws[1] / 2, draws[2] / 2


def formula(space, x, d):
    """The predictions by their definitions, in numpy."""
    eps = (x - d) / SIGMA
    return {"denoised": d, "eps": eps, "v": eps - d, "score": -eps / SIGMA}[space]


def guided(name, space, d_cond, d_ref, x, **knobs):
    rule = make_rule(name, {name: {"space": space, **knobs}})
    return guide(rule, d_cond, d_ref, x, g=G, at=point(start=SIGMA))


@pytest.mark.parametrize("space", SPACES)
def test_conversion_follows_its_definition_and_is_inverted(space):
    x, d, _ = tensors()
    call = make_call(None, x, SIGMA, torch.eye(4))
    found = into(space, d, call)
    np.testing.assert_allclose(found, formula(space, x.numpy(), d.numpy()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back(space, found, call), d, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_default_space_is_unchanged_and_others_differ(name):
    x, d_cond, d_ref = tensors()
    plain = guide(make_rule(name), d_cond, d_ref, x, g=G, at=point(start=SIGMA))
    found = {space: guided(name, space, d_cond, d_ref, x) for space in SPACES}
    own = "eps" if name == "cfg-zero" else "denoised"
    assert torch.equal(found[own], plain)
    for space in {"denoised", "eps", "v"} - {own}:
        assert (found[space] - plain).norm() > 1e-3 * plain.norm()
    # A factor changes no angle and no ratio, only apg's length.
    same = torch.allclose(found["score"], found["eps"], rtol=1e-9, atol=1e-9)
    assert same == (name != "apg")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", RULES)
def test_neutral_knobs_are_cfg_in_every_space(name, space):
    x, d_cond, d_ref = tensors()
    neutral = dict(make_rule(name).neutral)
    found = guided(name, space, d_cond, d_ref, x, **neutral)
    expected = d_ref + G * (d_cond - d_ref)
    assert (found - expected).abs().max() < 1e-12


def test_space_is_recorded():
    assert make_rule("tcfg", {"tcfg": {"space": "v"}}).settings()["tcfg.space"] == "v"
    method = oracle()
    rule = make_rule("apg", {"apg": {"space": "eps"}})
    assert method.supports(Guidance(3.0, rule), 8) is None


def guider(name, original=False):
    """A guider of diffusers at scale G, in its n-th step."""
    guiders = pytest.importorskip("diffusers.guiders")
    # In the original formulation of diffusers the scale is g - 1.
    common = {"guidance_scale": G - 1 if original else G, "use_original_formulation": original}
    made = {
        "apg": lambda: guiders.AdaptiveProjectedGuidance(
            adaptive_projected_guidance_rescale=1.5, eta=0.25, **common
        ),
        "tcfg": lambda: guiders.TangentialClassifierFreeGuidance(**common),
        "rescale": lambda: guiders.ClassifierFreeGuidance(guidance_rescale=0.7, **common),
        "cfg-zero": lambda: guiders.ClassifierFreeZeroStarGuidance(**common),
        "mambo-g": lambda: guiders.MagnitudeAwareGuidance(alpha=8.0, **common),
    }[name]()
    made._step = 3
    return made


KNOBS = {
    "apg": {"eta": 0.25, "beta": 0.0, "threshold": 1.5 / 192**0.5},
    "cfg-zero": {"zero_share": 0.0},
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["apg", "apg-ref", "tcfg", "rescale", "cfg-zero"])
def test_parity_with_diffusers(name, space):
    """Guiders get the predictions of a model; tcfg and cfg-zero round to float32 there."""
    x, d_cond, d_ref = tensors()
    call = make_call(None, x, SIGMA, torch.eye(4))
    rule = name.removesuffix("-ref")
    pair = (into(space, d, call) for d in (d_cond, d_ref))
    pred = guider(rule, original=name == "apg").forward(*pair).pred
    base = {"base": "ref"} if name == "apg-ref" else {}
    found = guided(rule, space, d_cond, d_ref, x, **KNOBS.get(rule, {}), **base)
    tolerance = 2e-5 if name in ("tcfg", "cfg-zero") else 1e-10
    torch.testing.assert_close(found, back(space, pred, call), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("space", SPACES)
def test_mambo_g_equals_the_guider_of_diffusers(space):
    """It gets images as vectors: torch has no norm over the three dimensions of images."""
    x, d_cond, d_ref = tensors()
    call = make_call(None, x, SIGMA, torch.eye(4))
    cond, ref = (into(space, d, call).flatten(1) for d in (d_cond, d_ref))
    pred = guider("mambo-g").forward(cond, ref).pred.reshape(x.shape)
    found = guided("mambo-g", space, d_cond, d_ref, x)
    torch.testing.assert_close(found, back(space, pred, call), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scales", [(10.0, 5.0), (9.0, 5.25, 1.5), (2.0, 6.0)])
def test_fdg_equals_the_guider_of_diffusers_on_the_same_pyramid(scales, monkeypatch):
    """Its pyramid is that of kornia, with a blur of 5x5 pixels, so it gets this one instead."""
    module = pytest.importorskip("diffusers.guiders.frequency_decoupled_guidance")

    def upsample(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    def pyramid(x, levels):
        coarse = [F.avg_pool2d(x, 2**i) if i else x for i in range(levels)]
        return [a - upsample(b) for a, b in pairwise(coarse)] + [coarse[-1]]

    monkeypatch.setattr(module, "_CAN_USE_KORNIA", True)
    monkeypatch.setattr(module, "build_laplacian_pyramid_func", pyramid)
    monkeypatch.setattr(module, "upsample_and_blur_func", upsample)
    _, d_cond, d_ref = tensors()
    made = module.FrequencyDecoupledGuidance(guidance_scales=list(scales))
    made._step = 3
    g = 10.0
    high, *_, low = ((scale - 1) / (g - 1) for scale in scales)
    rule = make_rule("fdg", {"fdg": {"low": low, "high": high, "levels": len(scales)}})
    found = guide(rule, d_cond, d_ref, g=g)
    torch.testing.assert_close(found, made.forward(d_cond, d_ref).pred, rtol=1e-10, atol=1e-10)


def test_apg_with_momentum_equals_diffusers_over_steps():
    guiders = pytest.importorskip("diffusers.guiders")
    made = guiders.AdaptiveProjectedGuidance(
        guidance_scale=G - 1, adaptive_projected_guidance_momentum=-0.75,
        adaptive_projected_guidance_rescale=2.5, eta=0.0, use_original_formulation=True,
    )  # fmt: skip
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    made.momentum_buffer = MomentumBuffer(-0.75)
    rule = make_rule("apg", {"apg": {"threshold": 2.5 / 192**0.5}})
    state = {}
    for step in range(3):
        x, d_cond, d_ref = tensors(step)
        made._step = step
        expected = made.forward(d_cond, d_ref).pred
        at = point(step=step, start=SIGMA)
        found = guide(rule, d_cond, d_ref, x, g=G, at=at, state=state)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
