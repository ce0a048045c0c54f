"""Forward-mode derivatives through the networks, for losses of continuous-time methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def value_and_derivative(
    f: Callable[..., Tensor], inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """f(*inputs) and its directional derivative, in one pass and in full precision.

    Tangents have the shapes of the inputs, and both results the shape of f. Neither has a gradient
    with respect to the weights. Dropout is allowed if f draws the same mask in every call.
    """
    # Fused attention has no forward-mode derivative. Autocast does not see the inputs of a function
    # transform: it would round the weights only, and convolutions refuse mixed dtypes.
    math, exact = sdpa_kernel(SDPBackend.MATH), torch.autocast(inputs[0].device.type, enabled=False)
    with torch.no_grad(), math, exact, warnings.catch_warnings():
        # On first use torch compiles its rules with torch.jit.script, which is deprecated.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        value, derivative = torch.func.jvp(f, inputs, tangents)[:2]
    return value, derivative
