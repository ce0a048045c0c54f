"""The conformance battery of methods, for plugins to inherit.

    from bench.conformance import MethodConformance

    class TestMine(MethodConformance):
        method = Mine
        preset = "digits"

Run it with pytest. What `supports` refuses is not tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn

from bench.data import DATASETS, Dataset
from bench.data.convert import from_model, one_hot
from bench.experiment.rules import ignored
from bench.plugins.load import KINDS
from bench.training.card import make_card, make_method
from bench.training.initial import make_teacher, teacher_card
from bench.training.step import build_nets, draw_batch
from methods import BatchRNG, Guidance, Inverts, Method, Preset, Progress, SampleRNG
from methods.rules import CFG, Point, trajectory
from methods.rules.record import Record

N = 6
BATCH = 8


class _Halved(CFG):
    """CFG at half the distance from 1."""

    name = "halved"

    def scale(self, g: float, at: Point) -> float:
        return 1 + (g - 1) / 2


class MethodConformance:
    """Tests of one method at one of its presets, on untrained networks."""

    method: ClassVar[type[Method[Any]]]
    preset: ClassVar[str]

    @property
    def _preset(self) -> Preset:
        return self.method.presets[self.preset]

    def _data(self) -> Dataset:
        return DATASETS[self._preset.dataset]()

    def _made(self) -> tuple[Method[Any], nn.Module]:
        method = self.method(self._preset.config, self._data().spec)
        return method, perturbed_nets(method, 0.02)

    def _sample(
        self, made: tuple[Method[Any], nn.Module], guidance: float, steps: int, indices: list[int]
    ) -> Tensor:
        method, nets = made
        labels = one_hot(torch.tensor(indices) % method.data.num_classes, method.data.num_classes)
        with torch.inference_mode():
            return method.sample(
                nets, labels, Guidance(guidance), steps, SampleRNG(0, indices)
            ).clone()

    def _loss(self, method: Method[Any], nets: nn.Module, step: int = 0) -> dict[str, Tensor]:
        rng = BatchRNG(3, BATCH, 0, BATCH)
        data, cpu = self._data(), torch.device("cpu")
        batch = draw_batch(data.train, method, rng, cpu)
        if method.wants_teacher is not None:  # any denoiser will do, even an untrained one
            card = teacher_card(method.wants_teacher, data, self.preset, {})
            batch = replace(batch, teacher=make_teacher(type(method), card, data, None, cpu))
        return method.loss(nets, batch, Progress(step, 10), rng)

    def _able(self, method: Method[Any]) -> Iterator[tuple[float, int]]:
        for steps in self._preset.steps:
            for scale in (1.0, 4.0):
                if method.supports(Guidance(scale), steps) is None:
                    yield scale, steps

    def test_class_has_every_part_of_a_method(self) -> None:
        """Names, types and arguments are those of `Method`."""
        KINDS["methods"].check(self.method)

    def test_preset_names_a_known_data_set_and_a_usable_configuration(self) -> None:
        """The preset resolves, and its configuration survives JSON."""
        data = self._data()
        card = make_card(self.method.name, data=data, preset=self.preset)
        again = self.method.config_type.model_validate_json(self._preset.config.model_dump_json())
        assert again == self._preset.config == make_method(card, data).config
        assert (card.train is not None) == self.method.trains
        assert self._preset.steps

    def test_off_is_supported_at_the_presets_steps(self) -> None:
        """Every method supports guidance 1, the baseline of comparisons."""
        method, _ = self._made()
        for steps in self._preset.steps:
            reason = method.supports(Guidance(1.0), steps)
            assert reason is None, f"supports refuses g = 1 with {steps} steps: {reason}"

    def test_guidance_kind_is_true(self) -> None:
        """A method without guidance refuses it with a reason; others take some scale above 1."""
        method, _ = self._made()
        reasons = [method.supports(Guidance(4.0), steps) for steps in self._preset.steps]
        if method.guidance == "none":
            assert all(reasons), "guidance is 'none', and supports does not refuse g = 4"
        else:
            assert None in reasons, f"supports refuses g = 4: {reasons[0]}"

    def test_loss_terms_are_finite_per_sample(self) -> None:
        """Terms are named, (B,), finite and reach every parameter."""
        if not self.method.trains:
            return
        method, nets = self._made()
        nets.requires_grad_(True)
        terms = self._loss(method, nets)
        assert isinstance(terms, dict), f"loss gave a {type(terms).__name__}, expected a dict"
        assert terms, "loss gave no terms"
        for name, term in terms.items():
            assert name
            assert tuple(term.shape) == (BATCH,), f"{name} is {tuple(term.shape)}, not ({BATCH},)"
            assert torch.isfinite(term).all(), f"{name} is not finite"
        torch.autograd.backward(torch.stack([t.mean() for t in terms.values()]).sum())
        unused = [n for n, p in nets.named_parameters() if p.grad is None]
        assert not unused, f"the loss does not reach {unused}"

    def test_loss_draws_only_from_its_generator(self) -> None:
        """Equal generators give equal terms; the global generator is not used."""
        if self.method.trains:
            made = self._made()
            check_randomness(lambda: torch.stack([*self._loss(*made).values()]))

    def test_samples_have_the_shape_and_range_of_the_data(self) -> None:
        """Float32, finite, (B, *shape); images within [-1, 1]."""
        made = self._made()
        for scale, steps in self._able(made[0]):
            x = self._sample(made, scale, steps, list(range(N)))
            shape, at = (N, *made[0].data.shape), f"at g = {scale:g}"
            assert tuple(x.shape) == shape, f"samples are {tuple(x.shape)}, expected {shape}"
            assert x.dtype == torch.float32, f"samples are {x.dtype}, expected torch.float32"
            assert torch.isfinite(x).all(), f"samples have NaN or infinity {at}"
            if made[0].data.is_image:
                low, high = (float(end) for end in x.aminmax())
                assert x.abs().max() <= 1, (
                    f"images are in [{low:.3g}, {high:.3g}], expected [-1, 1]"
                )

    def test_sample_depends_only_on_its_index(self) -> None:
        """Neither the batch nor the place in it changes a sample."""
        made = self._made()
        for scale, steps in self._able(made[0]):
            whole, parts = check_independence(partial(self._sample, made, scale, steps))
            if made[0].data.is_image:  # the rounding hardly shows in uint8
                assert (from_model(parts) != from_model(whole)).float().mean() <= 0.01

    def test_sampling_draws_only_from_its_generators(self) -> None:
        """The same call twice gives the same samples; the global generator is not used."""
        made = self._made()
        for scale, steps in self._able(made[0]):
            check_randomness(partial(self._sample, made, scale, steps, [0, 1]))

    def test_classes_and_guidance_change_the_samples(self) -> None:
        """Another class gives another sample, and so does another supported scale."""
        made = self._made()
        method, nets = made
        for scale, steps in self._able(method):
            labels = one_hot(torch.tensor([0, 1]), method.data.num_classes)
            with torch.inference_mode():
                rng = SampleRNG(0, [7, 7])
                pair = method.sample(nets, labels, Guidance(scale), steps, rng)
            assert not torch.equal(pair[0], pair[1]), "two classes give the same sample"
            if scale != 1.0:
                off = self._sample(made, 1.0, steps, [0, 1])
                guided = self._sample(made, scale, steps, [0, 1])
                assert not torch.equal(off, guided), f"g = {scale:g} gives the samples of g = 1"

    def test_rule_is_applied_if_the_method_takes_rules(self) -> None:
        """With `takes_rules` samples follow `guidance.rule`: they come from `sample_guided`."""
        method, nets = self._made()
        if not method.takes_rules:
            return
        steps, record = self._preset.steps[0], Record()
        labels = one_hot(torch.tensor([0, 1]), method.data.num_classes)
        found = []
        for rule in (CFG(), _Halved()):
            if method.supports(Guidance(4.0, rule), steps) is None:
                with torch.inference_mode():
                    guidance = Guidance(4.0, rule, record)
                    rng = SampleRNG(0, [0, 1])
                    found.append(method.sample(nets, labels, guidance, steps, rng).clone())
                assert record.values, ignored(method.name, rule.name)
        if len(found) == 2:
            assert not torch.equal(*found), "another rule gives the samples of CFG"

    @mock.patch.object(trajectory, "CPU_VALUES", 0)  # one branch per call
    def test_nfe_counts_the_evaluations_of_the_networks(self) -> None:
        """`nfe` equals the calls of the network, or of its parts, for one sample."""
        method, nets = self._made()
        calls = _count_calls(nets)
        for scale, steps in self._able(method):
            nfe = method.nfe(Guidance(scale), steps)
            assert isinstance(nfe, int)
            assert nfe >= 1
            calls.clear()
            self._sample((method, nets), scale, steps, [0])
            if next(nets.parameters(), None) is not None:
                called = _called(calls)
                assert called == nfe, f"{called} calls at g = {scale:g}, {nfe} announced"

    def test_inversion_and_editing_have_the_shape_of_the_data(self) -> None:
        """A method that inverts gives finite latents and samples of the right shape."""
        method, nets = self._made()
        if not isinstance(method, Inverts):
            return
        batch = draw_batch(self._data().train, method, BatchRNG(0, 2, 0, 2), torch.device("cpu"))
        with torch.inference_mode():
            latent = method.invert(nets, batch.x0, batch.labels)
            edited = method.edit(nets, latent, batch.labels, Guidance(1.0))
        for x in (latent, edited):
            assert x.shape == batch.x0.shape
            assert torch.isfinite(x).all()
        if method.data.is_image:
            assert edited.abs().max() <= 1, "edited images should be in [-1, 1]"

    @mock.patch.object(trajectory, "CPU_VALUES", 0)  # one branch per call
    def test_inversion_and_editing_count_their_evaluations(self) -> None:
        """`inversion_nfe` and `edit_nfe` equal the calls of the networks; `latent_sigma` is > 0.

        Other supported scales are counted too, and change the edit.
        """
        method, nets = self._made()
        if not isinstance(method, Inverts):
            return
        assert method.latent_sigma() > 0
        batch = draw_batch(self._data().train, method, BatchRNG(0, 2, 0, 2), torch.device("cpu"))
        calls = _count_calls(nets)
        with torch.inference_mode(), untouched_global_rng():
            latent = method.invert(nets, batch.x0, batch.labels)
            called = _called(calls)
            assert called == method.inversion_nfe(), f"{called} calls to invert"
            edits = []
            for scale in dict.fromkeys(scale for scale, _ in self._able(method)):
                calls.clear()
                edits.append(method.edit(nets, latent, batch.labels.roll(1, 1), Guidance(scale)))
                called = _called(calls)
                nfe = method.edit_nfe(Guidance(scale))
                assert called == nfe, f"{called} calls to edit at g = {scale:g}, {nfe} announced"
        assert all(not torch.equal(edits[0], other) for other in edits[1:])


def _count_calls(nets: nn.Module) -> Counter[str]:
    """Count the forward calls of a module and of its parts from now on."""
    calls: Counter[str] = Counter()
    nets.register_forward_hook(lambda *_: calls.update(["whole"]))
    for part in nets.children():
        part.register_forward_hook(lambda *_: calls.update(["parts"]))
    return calls


def _called(calls: Counter[str]) -> int:
    # A container of networks has no forward: then its parts are the networks.
    return calls["whole"] or calls["parts"]


@contextmanager
def untouched_global_rng() -> Iterator[None]:
    """AssertionError if the block uses the global generator of torch."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"


def perturbed_nets(method: Method[Any], alpha: float) -> nn.Module:
    """Untrained networks plus noise; layers initialised to zero would hide what they receive."""
    nets = build_nets(method, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in nets.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=alpha)
    return nets.eval().requires_grad_(False)


def check_independence(sample: Callable[[list[int]], Tensor]) -> tuple[Tensor, Tensor]:
    """Check that samples depend only on their index; returns N samples, whole and in parts."""
    whole = sample(list(range(N)))
    parts = torch.cat([sample(part) for part in ([0], [1, 2, 3], [4, 5])])
    # Matrix products of other shapes sum in another order: equal up to rounding.
    for name, found, wanted in (
        ("in another batch", parts, whole), ("at another place", sample([5, 0]), whole[[5, 0]]),
    ):  # fmt: skip
        apart = float((found - wanted).abs().max())
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4), (
            f"a sample differs {name} by {apart:.2g}, expected rounding only: draw from `rng`"
        )
    return whole, parts


def check_randomness(draw: Callable[[], Tensor]) -> None:
    """Check that two calls give equal results, without using the global generator."""
    with untouched_global_rng():
        first = draw()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert torch.equal(first, draw()), (
            "the same call gives something else after torch.manual_seed: draw from the generator "
            "that is passed"
        )
