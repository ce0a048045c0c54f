"""Guiders of diffusers, and others with their interface, as rules.

A guider computes `forward(pred_cond, pred_uncond).pred` and gets neither x nor sigma. Each becomes
a rule with the arguments of its constructor as knobs. `--rule diffusers:NAME` names one of
diffusers; a plugin registers its own with `register_rule(guider_rule(MyGuider))`.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, ClassVar, Literal

from pydantic import Field, create_model
from torch import Tensor

from methods.rules.base import Call, Rule, Weight
from methods.rules.space import SpaceKnobs, back, into

PREFIX = "diffusers-"
"""Of the rules' names."""
GIVEN = ("self", "guidance_scale", "enabled")
"""Arguments of guiders that are no knobs."""


class GuiderRule(Rule[SpaceKnobs]):
    """A guider's prediction in `space`, back as D.

    The guider's scale is g, or w = g - 1 with its `use_original_formulation`. Each trajectory has a
    guider of its own, which may keep a state. It counts steps as a pipeline does; both stages of a
    Heun step are the same step. A vector is an image of one pixel.
    """

    guider: ClassVar[type[Any]]

    def combine(self, d_cond: Tensor, d_ref: Tensor, g: Weight, call: Call) -> Tensor:
        """The guider's output for both predictions."""
        if isinstance(g, Tensor):
            raise ValueError(f"{self.name} takes one scale for all samples, as its guider does")
        knobs = self.knobs.model_dump(exclude={"space", "diffusers"})
        guider: Any = call.state.get(f"{self.name}.guider")
        first = guider is None
        if first:
            guider = call.state[f"{self.name}.guider"] = self.guider(guidance_scale=g, **knobs)
        if first or call.at.stage == 0:  # what a guider sets up in its first step
            guider.set_state(0 if first else call.at.step, call.at.steps, call.sigma)
            guider.prepare_inputs({})
        guider.set_state(call.at.step, call.at.steps, call.sigma)
        guider.guidance_scale = g - 1 if knobs.get("use_original_formulation") else g
        space = self.knobs.space
        cond, ref = (
            into(space, d, call).reshape(*d.shape, *[1] * (4 - d.ndim)) for d in (d_cond, d_ref)
        )
        pred: Tensor = guider.forward(cond, ref).pred
        return back(space, pred.reshape(d_cond.shape).to(d_cond), call)


def guider_rule(guider: type[Any], name: str | None = None) -> type[GuiderRule]:
    """The rule of a guider class, by default called like it. Raises ValueError if it cannot be one.

    Guiders of changed networks, such as one with skipped layers, have more predictions than two, or
    must be told the layers.
    """
    # It warns of a changing interface at every guider.
    logging.getLogger("diffusers.guiders.guider_utils").setLevel(logging.ERROR)
    parameters = inspect.signature(guider).parameters
    if getattr(guider, "_input_predictions", None) != ["pred_cond", "pred_uncond"]:
        raise ValueError(f"{guider.__name__} combines other predictions than D_c and D_null")
    if "guidance_scale" not in parameters:
        raise ValueError(f"{guider.__name__} has no guidance_scale")
    try:
        guider()
    except Exception as error:  # the code of a user may fail in any way
        raise ValueError(f"{guider.__name__} cannot be made without arguments: {error}") from None
    fields: dict[str, Any] = {
        p: (_kind(v.default), v.default) for p, v in parameters.items() if p not in GIVEN
    }
    about = {
        "name": name or guider.__name__,
        "summary": (inspect.getdoc(guider) or guider.__name__).splitlines()[0],
        "knobs_type": create_model(f"{guider.__name__}Knobs", __base__=SpaceKnobs, **fields),
        "guider": guider,
        "__module__": guider.__module__,
    }
    return type(guider.__name__, (GuiderRule,), about)


def diffusers_rule(name: str) -> type[GuiderRule]:
    """The rule "diffusers-NAME" of a guider class in diffusers.guiders.

    Raises ImportError without diffusers, KeyError for an unknown NAME, ValueError as `guider_rule`.
    """
    import diffusers
    from diffusers import guiders

    made = guider_rule(vars(guiders)[name.removeprefix(PREFIX)], name)
    version: Any = Literal[diffusers.__version__]
    field = Field(diffusers.__version__, description="its version, which decides the results")
    made.knobs_type = create_model(
        made.knobs_type.__name__, __base__=made.knobs_type, diffusers=(version, field)
    )
    made.__module__ = __name__  # the version stands for the code of diffusers
    return made


def diffusers_guiders() -> list[str]:
    """The classes of diffusers.guiders that can be rules."""
    from diffusers import guiders

    names = []
    for name, value in vars(guiders).items():
        if inspect.isclass(value) and getattr(value, "_input_predictions", None):
            try:
                guider_rule(value)
            except ValueError:
                continue
            names.append(name)
    return sorted(names)


def _kind(default: object) -> Any:
    """The type of a knob with this default."""
    return float | int | None if default is None else type(default)
