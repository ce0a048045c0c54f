"""Foresight guidance: repeat far steps down and up before a step of CFG++."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor

from methods.rules.base import Between, Call, OneOf, Rule
from methods.rules.registry import register_rule
from methods.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Loop = tuple[Share, Share, Annotated[int, Field(ge=0, le=100)]]
"""The step of a loop and its length, as shares of the number of steps, and its iterations."""


class FSGKnobs(Settings):
    """The loops, and the step that follows. The default has the cost of 50 steps in 40."""

    schedule: tuple[Loop, ...] = Field(
        ((0.0, 0.125, 2), (0.125, 0.125, 2), (0.375, 0.125, 1)),
        description="loops [start, length, iterations], in shares of the steps",
    )
    step: Literal["cfgpp", "cfg"] = Field("cfgpp", description="the step after the loops")
    lam: float = Field(1.0, ge=0, description="lambda of CFG++")

    @field_validator("schedule", mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value  # as rows hold it


@register_rule
class Foresight(Rule[FSGKnobs]):
    """x' = step from x to sigma_far with g; x <- x' + (sigma - sigma_far) eps_null(x'; sigma_far).

    Foresight guidance (FSG 2025, arXiv 2510.21512). At the steps of the schedule this is repeated,
    with Euler steps over several levels. Every step then is one of CFG++ with `lam`, so that g acts
    in the loops only. The released code goes down by one level however long the interval is; here
    it is followed to its end. Published: g = 5.5, lam = 1 (.7 for the schedule of 150 steps).
    """

    name = "foresight"
    summary = "repeats far steps down and up before steps of CFG++, Euler steps, FSG (2025)"
    knobs_type = FSGKnobs
    neutral: ClassVar[Mapping[str, Any]] = {"schedule": (), "step": "cfg"}
    search: ClassVar[Mapping[str, Between | OneOf]] = {"lam": Between(0.2, 1.5)}
    first_order = True

    def step(self, call: Call) -> Tensor:
        """The step of CFG++ after the loops."""
        x, at = call.x, call.at
        for start, length, count in self.knobs.schedule:
            if at.step != round(start * at.steps) or at.end == 0:
                continue
            far = at.levels[min(at.step + max(1, round(length * at.steps)), at.steps - 1)]
            for _ in range(count):
                down = call.to(x, end=far).advance()
                x = down + (at.start - far) * (down - call.to(down, far).null()) / far
        here = call.to(x)
        if self.knobs.step == "cfg":
            return here.advance()
        d_ref = here.null()
        update = self.knobs.lam * (here.denoise() - d_ref)
        return d_ref + update + at.end / at.start * (x - d_ref)
