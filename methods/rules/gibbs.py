"""Gibbs-like guidance: sample without guidance, then noise and denoise with guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import Tensor

from methods.rules.base import Between, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings

if TYPE_CHECKING:
    from methods.rules.trajectory import Trajectory


class GibbsKnobs(Settings):
    """Rounds, as published for EDM2 on ImageNet-512: of 32 steps 12 unguided, then two of 10."""

    rounds: int = Field(2, ge=0, le=1000, description="times of noising and denoising; 0 is CFG")
    sigma: float = Field(
        1.0, gt=0, description="noise level of a round; published for latents of deviation .5"
    )
    first: float = Field(0.375, ge=0, lt=1, description="share of the steps of the first sampling")


@register_rule
class GibbsLike(Rule[GibbsKnobs]):
    """x <- sample of D_c; then `rounds` times x <- CFG's sample from x + sigma n (2505.21101).

    Moufad et al. (2025, CFGiG). The n are fresh. Each sampling is on a grid of EDM's form (rho 7),
    from `sigma` to the lowest level in the rounds. All together have the steps of one sampling, but
    a round has at least two; the first sampling takes what does not divide. For two Gaussians many
    rounds at a small sigma give the density p_c^g p_u^(1 - g), which CFG misses.
    """

    name = "gibbs"
    summary = "samples D_c, then noises and denoises with CFG, Gibbs-like (Moufad 2025)"
    knobs_type = GibbsKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"rounds": 0}
    search: ClassVar[Mapping[str, Between | OneOf]] = {
        "rounds": OneOf((1, 2, 3, 4)),
        "sigma": Between(0.2, 10.0, log=True),
        "first": Between(0.2, 0.6),
    }

    def run(self, trajectory: Trajectory, x: Tensor) -> Tensor:
        """The samples after all rounds."""
        from methods.samplers import karras_sigmas  # it imports the rules itself

        k, levels = self.knobs, trajectory.sigmas
        if k.rounds == 0:
            return trajectory.follow(x, levels)
        steps, high = len(levels) - 1, float(levels[0])
        low = min(float(levels[-2]), k.sigma / 2)
        each = max(2, int(steps * (1 - k.first)) // k.rounds)
        first = max(1, steps - each * k.rounds)
        x = trajectory.follow(x, karras_sigmas(first, low, high).to(levels), g=1.0)
        for _ in range(k.rounds):
            trajectory.state.clear()  # rules that are composed with this one start anew
            x = x + k.sigma * trajectory.draw(x)
            x = trajectory.follow(x, karras_sigmas(each, low, k.sigma).to(levels))
        return x
