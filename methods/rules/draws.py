"""Shared by rules with a perturbed reference: random draws per step, and reference labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from methods.rules.base import Call

Labels = Literal["own", "null"]
"""The labels of a reference: those of the sample, or no labels."""


def reference_labels(call: Call, labels: Labels) -> Tensor:
    """The selected labels (B, K), zeros for null."""
    return call.labels if labels == "own" else torch.zeros_like(call.labels)


def once_a_step(call: Call, name: str, draw: Callable[[], Tensor]) -> Tensor:
    """The result of `draw` (B, ...), drawn at the first call of a step and reused within the step.

    Heun's corrector should correct the error of the predictor, not the difference of two draws.
    """
    step = f"{name}.step"
    if call.state.get(step) != call.at.step:
        call.state[step], call.state[name] = call.at.step, draw()
    kept: Tensor = call.state[name]
    return kept
