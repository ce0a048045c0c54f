"""The conformance battery of guidance rules, for plugins to inherit.

    from bench.rule_conformance import RuleConformance

    class TestMine(RuleConformance):
        rule = Mine

Run it with pytest. It tests a rule wherever it is supported: on the closed-form denoiser of
`modes2d`, and on small untrained networks for `digits` (a U-Net with attention, an unconditional
and a weaker one).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from math import ceil, prod
from typing import Any, ClassVar, cast
from unittest import mock

import torch
from pydantic import ValidationError
from torch import Tensor, nn

import methods.oracle
from bench.data import DATASETS
from bench.data.convert import one_hot
from bench.plugins.conformance import N, check_independence, check_randomness, perturbed_nets
from bench.plugins.load import KINDS
from methods import EDM, Guidance, Method, Oracle, SampleRNG
from methods.nets.config import UNetConfig
from methods.rules import CFG, Between, Call, Composite, Interval, Rule, trajectory
from methods.rules.base import Branch
from methods.rules.dry_run import evaluations
from methods.rules.record import VJP, Record
from methods.samplers import karras_sigmas, sample_heun

STEPS = 8
G = 3.0


class Subject:
    """A method with its networks: samples under a rule and counts evaluations."""

    def __init__(self, method: Method[Any], nets: nn.Module) -> None:
        self.method, self.nets = method, nets

    def takes(self, rule: Rule[Any]) -> bool:
        """Whether the method supports the rule."""
        return self.method.supports(Guidance(G, rule), STEPS) is None

    def labels(self, indices: Sequence[int]) -> Tensor:
        """One-hot labels (B, K): the classes in turn."""
        classes = self.method.data.num_classes
        return one_hot(torch.tensor(indices) % classes, classes)

    def sample(
        self,
        rule: Rule[Any],
        g: float,
        indices: Sequence[int] = range(N),
        record: Record | None = None,
    ) -> Tensor:
        """Samples (B, ...) of these indices."""
        with torch.inference_mode():
            rng, guidance = SampleRNG(0, indices), Guidance(g, rule, record)
            labels = self.labels(indices)
            return self.method.sample(self.nets, labels, guidance, STEPS, rng).clone()

    def unguided(self) -> Tensor:
        """Samples (N, ...) of the conditional denoiser, by the plain sampler."""
        c, labels = self.method.config, self.labels(range(N))
        x = c.sigma_max * SampleRNG(0, range(N)).randn(self.method.data.shape)
        sigmas = karras_sigmas(STEPS, c.sigma_min, c.sigma_max, c.rho)
        with torch.inference_mode():
            return sample_heun(lambda x, s: self.denoise(x, s, labels), x, sigmas).float()

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """D(x; sigma, labels)."""
        if isinstance(self.method, Oracle):
            return methods.oracle.exact_denoised(x, sigma, labels, self.method.mixture)
        return cast(Tensor, self.nets(x, sigma, labels)).to(x)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Evaluations of the conditional ("main"), "null" and "weak" networks in the block.

        They are counted inside the networks, for N samples; a gradient counts as one more.
        """
        calls: Counter[str] = Counter()
        values = N * prod(self.method.data.shape)

        def seen(branch: str, x: Tensor) -> None:
            calls[branch] += x.numel() * (VJP if x.requires_grad else 1) / values  # type: ignore[assignment]

        if isinstance(self.method, Oracle):
            exact, std = methods.oracle.exact_denoised, self.method.mixture.std

            def count(x: Tensor, sigma: Tensor, labels: Tensor, mixture: Any) -> Tensor:
                with_label = labels.any(1)
                if mixture.std != std:
                    seen("weak", x)
                else:
                    for branch, rows in (("main", with_label), ("null", ~with_label)):
                        if bool(rows.any()):
                            seen(branch, x[rows])
                return exact(x, sigma, labels, mixture)

            with mock.patch.object(methods.oracle, "exact_denoised", count):
                yield calls
            return
        parts = {"main": "model", "null": "null", "weak": "weak"}
        hooks = [
            getattr(self.nets, part).register_forward_hook(
                lambda _, given, __, name=name: seen(name, given[0])
            )
            for name, part in parts.items()
        ]
        try:
            yield calls
        finally:
            for hook in hooks:
                hook.remove()


@cache
def _subjects() -> tuple[Subject, ...]:
    modes = Oracle.presets["modes2d"].config
    oracle = Oracle(modes, DATASETS["modes2d"]().spec)  # type: ignore[arg-type]
    config = EDM.presets["digits"].config
    net = UNetConfig(arch="ddpmpp", channels=8, channel_mult=(1, 2), num_blocks=1,
                     attn_resolutions=(4,))  # fmt: skip
    config = config.model_copy(update={"net": net, "clamp": False})  # a clamp would hide much
    edm = EDM(config, DATASETS["digits"]().spec)  # type: ignore[arg-type]
    edm = edm.with_null(config).with_weak(config)  # type: ignore[arg-type]
    return Subject(oracle, nn.Module()), Subject(edm, perturbed_nets(edm, 0.05))


@cache
def _shared() -> Subject:
    """The U-Net of `_subjects` as its own unconditional branch."""
    paired = _subjects()[1].method
    edm = EDM(paired.config, paired.data)
    return Subject(edm, perturbed_nets(edm, 0.05))


class _Plain(CFG):
    """CFG with the reference and sampler of another rule."""

    def __init__(self, rule: Rule[Any]) -> None:
        super().__init__()
        self.rule = rule
        self.first_order, self.free = rule.first_order, rule.free  # type: ignore[misc]

    def branch(self) -> Branch:
        return self.rule.branch()

    def reference(self, call: Call) -> Tensor:
        return self.rule.reference(call)


def _rounded(counts: Mapping[Any, float]) -> dict[str, float]:
    return {branch: round(count, 6) for branch, count in counts.items() if count}


class RuleConformance:
    """Tests of one rule, at its default and at its neutral knobs."""

    rule: ClassVar[type[Rule[Any]]]

    def _made(self, knobs: dict[str, Any] | None = None) -> Rule[Any]:
        return self.rule(self.rule.knobs_type.model_validate(knobs or {}))

    def _able(self, rule: Rule[Any]) -> list[Subject]:
        able = [subject for subject in _subjects() if subject.takes(rule)]
        assert able, f"neither the closed form nor the networks support {rule.name}"
        return able

    def test_class_has_every_part_of_a_rule(self) -> None:
        """Names, types and arguments are those of `Rule`; `neutral` names knobs."""
        KINDS["rules"].check(self.rule)
        unknown = sorted(self.rule.neutral.keys() - self.rule.knobs_type.model_fields.keys())
        assert not unknown, f"neutral names {unknown}, which are no knobs"

    def test_off_is_the_conditional_denoiser(self) -> None:
        """At g = 1 samples are exactly those of D_c, and no other branch is evaluated.

        A rule that is `free` acts there, except with its neutral knobs.
        """
        rule = self._made(dict(self.rule.neutral) if self.rule.free else None)
        if rule.free:
            for subject in self._able(rule):
                plain = subject.sample(_Plain(rule), 1.0)
                assert torch.allclose(subject.sample(rule, 1.0), plain, rtol=1e-6, atol=1e-6)
                self._count(subject, self._made(), 1.0)
            return
        for subject in self._able(rule):
            with subject.counted() as calls:
                samples = subject.sample(rule, 1.0)
            assert torch.equal(samples, subject.unguided()), (
                "at g = 1 samples should be those of the conditional denoiser; a rule that acts "
                "there sets free = True"
            )
            assert calls == {"main": 2 * STEPS - 1}, f"at g = 1 it evaluates {dict(calls)}"

    def test_evaluations_match_the_announced_ones(self) -> None:
        """The dry run counts what sampling does, by branch; `nfe` is the sum.

        A rule that is `data_dependent` may evaluate less than announced.
        """
        rule = self._made()
        for subject in self._able(rule):
            self._count(subject, rule)

    def test_rule_composes_with_an_interval(self) -> None:
        """Outside the interval only D_c is evaluated, as announced."""
        if self.rule.name == Interval.name:
            return
        rule = Composite([Interval(), self._made()])
        assert rule.settings().keys() >= self._made().settings().keys()
        for subject in self._able(rule):
            assert self._count(subject, rule) < self._count(subject, self._made())

    def _count(self, subject: Subject, rule: Rule[Any], g: float = G) -> float:
        c, record = subject.method.config, Record()
        guidance = Guidance(g, rule)
        sigmas = karras_sigmas(STEPS, c.sigma_min, c.sigma_max, c.rho)
        announced = evaluations(rule, guidance, sigmas, data=subject.method.data)
        with subject.counted() as calls:
            samples = subject.sample(rule, g, record=record)
        assert torch.isfinite(samples).all(), f"{rule.name} is not finite"
        found, recorded = _rounded(calls), _rounded(record.evaluations())
        assert found == recorded, f"{found} evaluations, {recorded} recorded"
        nfe, total = subject.method.nfe(guidance, STEPS), calls.total()
        if rule.data_dependent:
            assert total <= nfe, f"{found} evaluations, at most {announced} announced"
        else:
            assert found == _rounded(announced), f"{found} evaluations, {announced} announced"
            assert nfe == ceil(total - 1e-6)
        return total

    def test_one_call_for_both_branches_gives_the_same_samples(self) -> None:
        """A network may evaluate both branches in one call, for any rule, up to rounding."""
        rule = self._made()
        for subject in (_subjects()[0], _shared()):
            if not subject.takes(rule):
                continue
            with mock.patch.object(trajectory, "CPU_VALUES", 1 << 40):
                joint = subject.sample(rule, G)
            with mock.patch.object(trajectory, "CPU_VALUES", 0):
                separate = subject.sample(rule, G)
            scale = float(separate.abs().max())
            assert torch.allclose(joint, separate, rtol=0, atol=1e-6 * scale)

    def test_neutral_knobs_are_plain_guidance(self) -> None:
        """They give the samples of CFG with the reference and sampler order of the rule."""
        rule = self._made(dict(self.rule.neutral))
        for subject in self._able(rule):
            plain = subject.sample(_Plain(rule), G)
            # Formulas equal on paper round differently, in float64 far below this tolerance.
            found = subject.sample(rule, G)
            apart = float((found - plain).abs().max())
            assert torch.allclose(found, plain, rtol=1e-6, atol=1e-6), (
                f"with the neutral knobs {dict(self.rule.neutral)} samples differ from those of "
                f"CFG by {apart:.2g}: `neutral` should hold the knobs at which the rule is CFG"
            )

    def test_sample_depends_only_on_its_index(self) -> None:
        """Neither the batch nor the place in it changes a sample."""
        rule = self._made()
        for subject in self._able(rule):
            check_independence(partial(subject.sample, rule, G))

    def test_sampling_draws_only_from_its_generators(self) -> None:
        """The same call twice gives the same samples; the global generator is not used."""
        rule = self._made()
        for subject in self._able(rule):
            check_randomness(partial(subject.sample, rule, G))

    def test_scale_changes_the_samples(self) -> None:
        """Other scales give other samples."""
        rule = self._made()
        for subject in self._able(rule):
            off, low, high = (subject.sample(rule, g) for g in (1.0, 2.0, 4.0))
            for scales, one, other in (("1 and 2", off, low), ("2 and 4", low, high)):
                same = torch.allclose(one, other, rtol=0, atol=1e-6)
                assert not same, f"g = {scales} give the same samples"

    def test_knobs_survive_json_and_are_recorded(self) -> None:
        """Knobs survive JSON, are recorded unless None, and an unknown one is refused."""
        for given in ({}, dict(self.rule.neutral)):
            rule = self._made(given)
            again = self.rule.knobs_type.model_validate_json(rule.knobs.model_dump_json())
            assert again == rule.knobs
            set_ones = rule.knobs.model_dump(exclude_none=True)
            names = {f"{self.rule.name}.{knob}" for knob in set_ones}
            assert rule.settings().keys() == names
        try:
            self._made({"no_such_knob": 1})
        except ValidationError:
            return
        raise AssertionError(f"{self.rule.name} takes a knob that it does not have")

    def test_search_offers_valid_knobs(self) -> None:
        """Every entry of `search` names a knob, and all corners of the ranges are valid."""
        assert self.rule.search.keys() <= self.rule.knobs_type.model_fields.keys()
        corners: list[tuple[Any, ...]] = []
        for knob, offered in self.rule.search.items():
            if isinstance(offered, Between):
                assert offered.low < offered.high, f"the range of {knob} is empty"
                assert offered.low > 0 or not offered.log, f"{knob} has no ratio from 0"
                corners.append((offered.low, offered.high))
            else:
                assert len(set(offered.values)) > 1, f"{knob} has no choice"
                corners.append(offered.values)
        for values in product(*corners):
            self._made(dict(zip(self.rule.search, values, strict=True)))
