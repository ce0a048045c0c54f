"""The space of predictions in which a rule works: the same formula on another space differs.

Published rules act on whatever their model predicts. A rule that is linear in the outputs at one x
and sigma, with coefficients that sum to 1, is the same in every space. Norms, angles, standard
deviations and averages over steps are not.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from methods.rules.call import Call
from methods.rules.flow import velocity
from methods.settings import Settings

Space = Literal["denoised", "eps", "v", "score"]


class SpaceKnobs(Settings):
    """The prediction that a rule acts on."""

    space: Space = Field(
        "denoised",
        description="denoised: D; eps: (x - D) / sigma; v: eps - D, the velocity of rectified "
        "flow; score: (D - x) / sigma^2",
    )


def into(space: Space, denoised: Tensor, call: Call) -> Tensor:
    """The prediction (B, ...) in `space` for D (B, ...) at the state of the call."""
    if space == "denoised":
        return denoised
    if space == "v":
        return velocity(call.x, denoised, float(call.sigma))
    eps = (call.x - denoised) / call.sigma
    return eps if space == "eps" else -eps / call.sigma


def back(space: Space, prediction: Tensor, call: Call) -> Tensor:
    """D (B, ...) for a prediction in `space`, the inverse of `into`."""
    if space == "denoised":
        return prediction
    if space == "v":
        return (call.x - call.sigma * prediction) / (1.0 + call.sigma)
    if space == "eps":
        return call.x - call.sigma * prediction
    return call.x + call.sigma**2 * prediction
