"""The battery over every registered guidance rule."""

from typing import ClassVar

import pytest
import torch
from pydantic import BaseModel, ValidationError

from bench.plugins import rule_conformance
from bench.plugins.rule_conformance import RuleConformance
from methods.rules import CFG, RULES, Between, Interval, Rule
from methods.settings import Settings


@pytest.fixture(params=[3, pytest.param(rule_conformance.STEPS, marks=pytest.mark.long)])
def _few_steps(request, monkeypatch):
    monkeypatch.setattr(rule_conformance, "STEPS", request.param)


@pytest.mark.usefixtures("_few_steps")
class TestEveryRule(RuleConformance):
    @pytest.fixture(autouse=True, params=sorted(RULES))
    def _choose(self, request):
        self.rule = RULES[request.param]


class _FromWeak(CFG):
    def branch(self):
        return "weak"

    def reference(self, call):
        return call.weak()


class _FromAnotherClass(CFG):
    def branch(self):
        return "main"

    def reference(self, call):
        turn = call.rng.rand((1,)) < 0.5
        return call.denoise(torch.where(turn, call.labels.roll(1, 1), call.labels.roll(2, 1)))


class _FromAChangedNetwork(CFG):
    def branch(self):
        return "attention"

    def reference(self, call):
        hook = call.networks.module.register_forward_hook(lambda _, __, out: 0.9 * out)
        changed = call.denoise()
        hook.remove()
        return changed


class _Share(Settings):
    share: float = 1.0


class _OfFirstOrder(Rule[_Share]):
    name = "of-first-order"
    summary = "noise of the conditional output"
    knobs_type = _Share
    neutral: ClassVar = {"share": 0.0}
    first_order = True

    def renoise(self, guided, d_cond, d_ref, call):
        return guided + self.knobs.share * (d_cond - guided)


@pytest.mark.usefixtures("_few_steps")
class TestRulesOfEveryBranch(RuleConformance):
    @pytest.fixture(
        autouse=True, params=[_FromWeak, _FromAnotherClass, _FromAChangedNetwork, _OfFirstOrder]
    )
    def _choose(self, request):
        self.rule = request.param


class _DrawsGlobally(CFG):
    def finish(self, guided, d_cond, call):
        return guided + 0.1 * torch.randn(guided.shape)


class _EvaluatesByOutputs(CFG):
    def reference(self, call):
        positive = (call.cond.flatten(1).sum(1) > 0) & (not call.dry)
        if positive.any():
            call.part(positive).null()
        return call.null()


class _IsNeverNeutral(CFG):
    def weigh(self, g, d_cond, d_ref, call):
        return 0.9 * g


class _LooksAtTheBatch(CFG):
    def finish(self, guided, d_cond, call):
        return guided - 0.1 * guided.mean(0)


class _Remembers(CFG):
    calls = 0

    def scale(self, g, at):
        self.calls += 1
        return g + 0.01 * self.calls


class _IgnoresTheScale(CFG):
    def scale(self, g, at):
        return 2.0


class _LooseKnobs(BaseModel):
    pass


class _TakesAnyKnob(CFG):
    knobs_type = _LooseKnobs


class _SearchesInVain(Interval):
    search: ClassVar = {"low": Between(0.1, 5.0), "high": Between(1.0, 20.0)}


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (_DrawsGlobally, RuleConformance.test_sampling_draws_only_from_its_generators),
        (_EvaluatesByOutputs, RuleConformance.test_evaluations_match_the_announced_ones),
        (_IsNeverNeutral, RuleConformance.test_neutral_knobs_are_plain_guidance),
        (_LooksAtTheBatch, RuleConformance.test_sample_depends_only_on_its_index),
        (_Remembers, RuleConformance.test_sampling_draws_only_from_its_generators),
        (_IgnoresTheScale, RuleConformance.test_scale_changes_the_samples),
        (_IgnoresTheScale, RuleConformance.test_rule_composes_with_an_interval),
        (_TakesAnyKnob, RuleConformance.test_knobs_survive_json_and_are_recorded),
        (_SearchesInVain, RuleConformance.test_search_offers_valid_knobs),
    ],
)
def test_battery_finds_broken_rules(broken, test):
    battery = RuleConformance()
    battery.rule = broken
    with pytest.raises((AssertionError, ValidationError)):
        test(battery)
