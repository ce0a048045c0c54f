"""Time-step guidance: the reference is the same network with a perturbed noise level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from methods.rules.base import Between, Branch, Call, OneOf, Rule
from methods.rules.draws import Labels, once_a_step, reference_labels
from methods.rules.registry import register_rule
from methods.settings import Settings


class TSGKnobs(Settings):
    """The size of the perturbation, and the labels of the reference."""

    scale: float = Field(1.0, ge=0, description="standard deviation of ln sigma at the first step")
    alpha: float = Field(1.0, ge=0, description="exponent of its decrease over the steps")
    labels: Labels = Field("own", description="own: as published; null: no labels, as in CFG")


@contextmanager
def told_off(module: nn.Module, factor: Tensor) -> Iterator[None]:
    """Inside the context `module` receives noise levels multiplied by `factor` (B,).

    Only c_noise = ln(sigma) / 4 is shifted, so the input keeps its correct scaling.
    """

    def shift(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x, c_noise, *others = given
        return (x, c_noise + (factor.log() / 4).to(c_noise), *others)

    handle = module.register_forward_pre_hook(shift)
    try:
        yield
    finally:
        handle.remove()


@register_rule
class TSG(Rule[TSGKnobs]):
    """D_t + g (D_c - D_t), D_t = D_c with a perturbed time embedding (arXiv 2407.02687).

    The idea is from Sadat et al. (2024): the same network and labels with a perturbed embedding of
    the time step, with a scale s and an exponent alpha. The formula and the defaults are ours:
    sigma' = sigma exp(s t^alpha n), where n is standard normal, drawn per sample and step, and t
    falls from 1 to 0. A network gets the c_noise of sigma', but its scalings use sigma. The
    closed-form denoiser, which has no network, is evaluated at sigma'.
    """

    name = "tsg"
    summary = "reference: the same network at a perturbed noise level (after Sadat 2024, own form)"
    knobs_type = TSGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"scale": 0.0, "labels": "null"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "scale": Between(0.1, 3.0, log=True),
        "alpha": Between(0.0, 3.0),
    }

    def branch(self) -> Branch:
        """The same network."""
        return "main"

    def factor(self, call: Call) -> Tensor:
        """The factor sigma' / sigma, (B,)."""
        noise = once_a_step(call, self.name, lambda: call.rng.randn((), call.x.device))
        deviation: float = self.knobs.scale * call.at.time**self.knobs.alpha
        return (deviation * noise.double()).exp()

    def reference(self, call: Call) -> Tensor:
        """D_t (B, ...)."""
        labels = reference_labels(call, self.knobs.labels)
        factor = self.factor(call)
        if call.networks.module is None:
            return call.denoise(labels, call.sigma * factor.to(call.sigma))
        return call.denoise(labels, within=lambda net: told_off(net, factor))
