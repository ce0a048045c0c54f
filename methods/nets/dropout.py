"""Dropout whose randomness is an argument."""

from __future__ import annotations

import torch
from torch import Tensor


def seeded_dropout(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """`x` with values zeroed at probability `rate` and the others scaled by 1 / (1 - rate).

    The mask comes from `generator`, on the device of `x`; without one, nothing is dropped. The
    training flag of a module plays no part, so that two calls share a mask by sharing a seed.
    """
    if generator is None or rate == 0.0:
        return x
    # Twice as fast as bernoulli_, and as exact: the draws are multiples of 2^-24.
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * (keep * (1.0 / (1.0 - rate))).to(x.dtype)
