"""The guidance scale, and the only conversion between its two conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from methods.rules.base import Rule
from methods.rules.cfg import CFG
from methods.rules.record import Record

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,) or scalar) -> denoised (B, ...): what a sampler integrates."""


@dataclass(frozen=True)
class Guidance:
    """Guidance scale g with D_g = D_null + g (D_c - D_null); g = 1 is off.

    Ho & Salimans (2022) and papers that follow them, such as iGCT, use w = g - 1. Convert with `.w`
    and `from_w`; no other code in the project converts. `rule` is the guidance rule of methods
    that are guided at sampling. `record` counts what sampling with this guidance costs.
    """

    scale: float = 1.0
    rule: Rule[Any] = field(default_factory=CFG, compare=False)
    record: Record | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"guidance must be a finite number, got {self.scale}")

    @property
    def w(self) -> float:
        """The weight of Ho & Salimans, g - 1; 0 is off."""
        return self.scale - 1.0

    @property
    def is_off(self) -> bool:
        """Whether g = 1. The null branch must then not be evaluated."""
        return self.scale == 1.0

    @property
    def acts(self) -> bool:
        """Whether samples differ from those of the conditional denoiser."""
        return not self.is_off or self.rule.free

    @classmethod
    def from_w(cls, w: float) -> Guidance:
        """The guidance scale for the weight w of Ho & Salimans."""
        return cls(w + 1.0)


OFF = Guidance(1.0)


def cfg(denoise_cond: Denoise, denoise_null: Denoise, guidance: Guidance) -> Denoise:
    """Classifier-free guidance, D_null + g (D_c - D_null) (Ho & Salimans 2022, eq. 6).

    At g = 1 this returns the conditional denoiser itself and never evaluates the null branch.
    """
    if guidance.is_off:
        return denoise_cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        d_null = denoise_null(x, sigma)
        return d_null + guidance.scale * (denoise_cond(x, sigma) - d_null)

    return guided
