"""What rules with a perturbed reference share: draws that both stages of a step see, and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from methods.rules.base import Call

Labels = Literal["own", "null"]
"""The labels of a reference: those of the sample, or none."""


def reference_labels(call: Call, labels: Labels) -> Tensor:
    """The labels (B, K) that are meant, zeros for null."""
    return call.labels if labels == "own" else torch.zeros_like(call.labels)


def once_a_step(call: Call, name: str, draw: Callable[[], Tensor]) -> Tensor:
    """What `draw` gives (B, ...), drawn when a step first asks for it and kept for the step.

    Heun's corrector is to correct the predictor's error and not the difference of two draws.
    """
    step = f"{name}.step"
    if call.state.get(step) != call.at.step:
        call.state[step], call.state[name] = call.at.step, draw()
    kept: Tensor = call.state[name]
    return kept
