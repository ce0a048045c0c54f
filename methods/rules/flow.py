"""Units of rectified flow, x_t = (1 - t) x_0 + t n, for rules that were published for it."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from methods.settings import Settings


class FlowKnobs(Settings):
    """The unit of the data in which a rule was published."""

    data_std: float = Field(
        1.0, gt=0, description="standard deviation of the data; about 1 for published latents"
    )


def flow_time(sigma: float, std: float = 1.0) -> float:
    """The time t in [0, 1) at a noise level, for data of standard deviation `std`."""
    return sigma / (std + sigma)


def velocity(x: Tensor, denoised: Tensor, sigma: float, std: float = 1.0) -> Tensor:
    """dx_t/dt = n - x_0 (B, ...) for data divided by `std`, towards the noise."""
    return (x - denoised) / sigma - denoised / std
