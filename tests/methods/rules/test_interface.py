"""What a rule may do besides reshaping CFG, and how its evaluations are counted."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from bench.plugins import rule_conformance
from bench.plugins.rule_conformance import RuleConformance
from methods import Guidance, SampleRNG
from methods.nets.skipping import skippable_blocks, skipped_blocks
from methods.rules import CFG, Call, Composite, Interval, Networks, Rule, make_rule
from methods.rules.dry_run import evaluations
from methods.rules.record import Record
from methods.rules.trajectory import sample_guided
from methods.samplers import karras_sigmas
from methods.settings import Settings
from tests.methods.rules.calls import point
from tests.methods.rules.references import tiny_edm
from tests.methods.rules.toy import denoised, networks, start


class _Share(Settings):
    share: float = 1.0


class _Free(Rule[_Share]):
    """Extrapolates from the output of the step before; acts at g = 1 too."""

    name, summary, knobs_type = "free", "momentum", _Share
    neutral: ClassVar = {"share": 0.0}
    free = first_order = True

    def finish(self, guided, d_cond, call):
        before = call.state.get("free.before", guided)
        call.state["free.before"] = guided
        return guided + 0.3 * self.knobs.share * (guided - before)


class _OwnStep(Rule[_Share]):
    """A predictor to the end of the step, where the update is evaluated (three evaluations)."""

    name, summary, knobs_type = "own-step", "predictor", _Share
    neutral: ClassVar = {"share": 0.0}
    first_order = True

    def step(self, call):
        if self.knobs.share == 0 or call.at.end == 0:
            return call.advance()
        d_cond, step = call.denoise(), call.at.end - call.at.start
        there = call.to(call.x + step * (call.x - d_cond) / call.sigma)
        d_g = d_cond + call.scale * (there.denoise() - there.null())
        return call.x + step * (call.x - d_g) / call.sigma


class _ByOutputs(Rule[_Share]):
    """No reference for a sample whose outputs were alike in the last call."""

    name, summary, knobs_type = "by-outputs", "adaptive", _Share
    neutral: ClassVar = {"share": 0.0}
    data_dependent = True

    def reference(self, call):
        wanted = call.state.get("by-outputs.wanted", torch.ones(len(call.x), dtype=torch.bool))
        d_ref = call.cond.clone()
        if wanted.any():
            d_ref[wanted] = call.part(wanted).null()
        far = (d_ref - call.cond).flatten(1).norm(dim=1) > 0.05 * self.knobs.share
        call.state["by-outputs.wanted"] = wanted & (far | call.dry)
        return d_ref


class _Gradient(Rule[_Share]):
    name, summary, knobs_type = "gradient", "REG", _Share
    neutral: ClassVar = {"share": 0.0}

    def combine(self, d_cond, d_ref, g, call):
        slope = call.vjp()[1]
        return d_cond + (g - 1) * (1 + self.knobs.share * (slope - 1)) * (d_cond - d_ref)


class _Skips(Rule[_Share]):
    name, summary, knobs_type = "skips", "skip-layer guidance", _Share
    neutral: ClassVar = {"share": 0.0}

    def others(self):
        return ("blocks",)

    def finish(self, guided, d_cond, call):
        skipped = call.denoise(
            within=lambda net: skipped_blocks(net, [next(iter(skippable_blocks(net)))])
        )
        return guided + self.knobs.share * (d_cond - skipped)


class _Particles(Rule[_Share]):
    name, summary, knobs_type = "particles", "Feynman-Kac correction", _Share
    neutral: ClassVar = {"share": 0.0}
    first_order = True
    count = 3

    @property
    def particles(self):
        return self.count if self.knobs.share else 1

    def combine(self, d_cond, d_ref, g, call):
        call.state["particles.update"] = d_cond - d_ref
        return super().combine(d_cond, d_ref, g, call)

    def resample(self, x, call):
        update = call.state.pop("particles.update", None)
        if update is None or self.particles == 1:
            return None
        rate = call.g * (call.g - 1) * (call.at.start - call.at.end) / call.at.start**3
        return rate * update.square().flatten(1).sum(1)


class _Rounds(Rule[_Share]):
    """Noises the samples again and guides them from there."""

    name, summary, knobs_type = "rounds", "Gibbs-like", _Share
    neutral: ClassVar = {"share": 0.0}

    def run(self, trajectory, x):
        sigmas = trajectory.sigmas
        if self.knobs.share == 0:
            return trajectory.follow(x, sigmas)
        x = trajectory.follow(x, sigmas, g=1.0)
        levels = karras_sigmas(4, sigma_max=1.0)
        return trajectory.follow(x + trajectory.draw(x), levels)


@pytest.fixture
def _three_steps(monkeypatch):
    monkeypatch.setattr(rule_conformance, "STEPS", 3)


@pytest.mark.usefixtures("_three_steps")
class TestRulesOfEveryKind(RuleConformance):
    @pytest.fixture(
        autouse=True,
        params=[_Free, _OwnStep, _ByOutputs, _Gradient, _Skips, _Particles, _Rounds],
    )
    def _choose(self, request):
        self.rule = request.param


def counts(rule, g, steps=4):
    return evaluations(rule, Guidance(g, rule), karras_sigmas(steps))


@pytest.mark.parametrize(
    ("rule", "g", "expected"),
    [
        (CFG(), 3.0, {"main": 7, "null": 7}),
        (CFG(), 1.0, {"main": 7}),
        (_Free(), 1.0, {"main": 4}),
        (_OwnStep(), 3.0, {"main": 7, "null": 4}),
        (_OwnStep(), 1.0, {"main": 7}),
        (_ByOutputs(), 3.0, {"main": 7, "null": 7}),
        (_Gradient(), 3.0, {"main": 7 + 2 * 7, "null": 7}),
        (_Particles(), 3.0, {"main": 12, "null": 12}),
        (_Rounds(), 3.0, {"main": 14, "null": 7}),
    ],
)
def test_dry_run_counts_by_branch(rule, g, expected):
    assert counts(rule, g) == expected


def test_evaluations_decided_by_outputs_are_recorded_as_they_were_made():
    x, sigmas, labels, rng = start(n=40)
    record = Record()
    sample_guided(networks(), x, sigmas, labels, Guidance(2.0, _ByOutputs(), record), rng)
    found = record.evaluations()
    assert found["main"] == 17
    assert 1 < found["null"] < 17  # some samples stop early, not all
    assert found["null"] * 40 == int(found["null"] * 40)


def test_part_of_an_image_counts_as_its_share():
    record = Record()

    class Crops(CFG):
        def finish(self, guided, d_cond, call):
            call.to(call.x[..., :4]).denoise()
            return guided

    nets = Networks(main=lambda x, s, c: x / 2, null=lambda x, s: x / 3)
    x, sigmas = torch.ones(2, 3, 8, 8), karras_sigmas(1)
    guidance = Guidance(2.0, Crops(), record)
    sample_guided(nets, x, sigmas, torch.eye(2), guidance, SampleRNG(0, range(2)))
    assert record.evaluations() == {"main": 1.5, "null": 1.0}


def test_own_step_is_not_taken_where_an_interval_is_off():
    rule = Composite([Interval(), _OwnStep()])
    x, sigmas, labels, rng = start()
    levels = sigmas.tolist()
    inside = [s for s in levels[:-1] if 0.28 < s <= 2.9]
    found = evaluations(rule, Guidance(3.0, rule), sigmas)
    assert found == {"main": len(levels) - 1 + len(inside), "null": len(inside)}
    assert torch.isfinite(
        sample_guided(networks(), x, sigmas, labels, Guidance(3.0, rule), rng)
    ).all()


def test_two_rules_with_steps_of_their_own_do_not_compose():
    class Other(_OwnStep):
        name = "other"

    with pytest.raises(ValueError, match=r"own-step and other do not compose.*step"):
        Composite([_OwnStep(), Other()])


def test_guided_output_elsewhere_is_that_of_all_composed_rules():
    seen = []

    class Watches(CFG):
        name = "watches"

        def step(self, call):
            seen.append((call.guided(), call.to(call.x, call.at.start).guided(), call))
            return call.advance()

    rule = Composite([Watches(), make_rule("monotone")])
    x, sigmas, labels, rng = start()
    sample_guided(networks(), x, sigmas, labels, Guidance(3.0, rule), rng)
    here, there, call = seen[4]
    classes = labels.argmax(1).numpy()
    d_c = denoised(call.x.numpy(), call.at.start, classes)
    d_u = denoised(call.x.numpy(), call.at.start, -np.ones(len(classes)))
    g = make_rule("monotone").scale(3.0, call.at)
    assert abs(here.numpy() - (d_u + g * (d_c - d_u))).max() < 1e-12
    assert torch.equal(here, there)


@pytest.mark.parametrize("inference", [True, False])
def test_gradient_of_the_denoiser(inference):
    """D = (x + s^2 m) / (1 + s^2): the slope is 1 / (1 + s^2), also in inference mode."""

    def main(x, sigma, labels):
        return (x + sigma**2 * labels[:, :1]) / (1 + sigma**2)

    with torch.inference_mode(inference):
        x = torch.arange(6.0).reshape(3, 2).double()
        call = Call(
            x, x.new_tensor(2.0), point(), torch.eye(3), 3.0, Networks(main), SampleRNG(0, range(3))
        )
        d_cond, slope = call.vjp()
        _, along = call.vjp(x)
    assert torch.equal(d_cond, main(x, torch.tensor(2.0).double(), torch.eye(3)))
    assert torch.allclose(slope, torch.full_like(x, 0.2), rtol=1e-12)
    assert torch.allclose(along, 0.2 * x, rtol=1e-12)


def test_gradient_passes_through_a_network():
    """Finite differences of the tiny U-Net, which may not hold tensors of inference mode."""
    method, nets = tiny_edm()
    found = []

    class Looks(CFG):
        def combine(self, d_cond, d_ref, g, call):
            if call.at.step == 1 and not found:
                h = 3e-3 * torch.ones_like(call.x)
                sums = [call.to(call.x + s * h).denoise().sum() for s in (1, -1)]
                found.append((call.vjp()[1].sum(), (sums[0] - sums[1]) / 6e-3))
            return super().combine(d_cond, d_ref, g, call)

    with torch.inference_mode():
        method.sample(nets, torch.eye(10)[:2], Guidance(2.0, Looks()), 3, SampleRNG(0, range(2)))
    ((slope, difference),) = found
    assert float(slope) == pytest.approx(float(difference), rel=1e-2)


def test_particles_follow_the_tilted_density():
    """Weights turn CFG into samples of p_c^g p_u^(1 - g), whose std CFG misses (two Gaussians)."""
    m_c, s_c, m_u, s_u, g = 1.2, 0.6, -0.3, 1.1, 1.6

    def gaussian(x, sigma, mean, std):
        return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)

    nets = Networks(
        main=lambda x, sigma, labels: gaussian(x, sigma, m_c, s_c),
        null=lambda x, sigma: gaussian(x, sigma, m_u, s_u),
    )
    rule = _Particles()
    rule.count = 64
    n, sigmas = 1500, torch.cat([torch.logspace(1.3, -2, 120), torch.zeros(1)]).double()
    rng = SampleRNG(0, range(n))
    x = 20.0 * rng.randn((1,))
    found = {}
    for name, chosen in (("cfg", _Particles(_Share(share=0.0))), ("particles", rule)):
        guidance = Guidance(g, chosen)
        samples = sample_guided(nets, x, sigmas, torch.ones(n, 1), guidance, SampleRNG(1, range(n)))
        found[name] = float(samples.std())
    precision = g / s_c**2 + (1 - g) / s_u**2
    error = precision**-0.5 / (2 * n) ** 0.5
    assert abs(found["particles"] - precision**-0.5) < 4 * error
    assert found["cfg"] < precision**-0.5 - 8 * error


def test_skipped_blocks_return_their_input_and_are_restored():
    method, nets = tiny_edm()
    x, sigma, labels = torch.randn(2, 1, 8, 8), torch.tensor(1.0), torch.eye(10)[:2]
    whole = nets(x, sigma, labels)
    names = list(skippable_blocks(nets.model))
    assert names
    with pytest.raises(
        ValueError, match="no block named nowhere that can be skipped; this network"
    ):
        skipped_blocks(nets.model, ["nowhere"]).__enter__()
    with skipped_blocks(nets.model, names[:1]):
        assert not torch.allclose(nets(x, sigma, labels), whole)
        block = skippable_blocks(nets.model)[names[0]]
        h = torch.randn(2, block.conv0.in_channels, 4, 4)
        assert block(h, None) is h
    assert torch.equal(nets(x, sigma, labels), whole)
    assert method.supports(Guidance(2.0, _Skips()), 3) is None
