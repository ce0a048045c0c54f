"""Preconditioning: from a raw network F to a denoiser D(x; sigma) or a noiser N(x; sigma).

Sources: Karras et al. (2022, EDM, table 1), Song et al. (2023, consistency models, appendix C),
Hsu, Kao, Balestriero (2025, iGCT). The network always receives c_in x and c_noise = ln(sigma) / 4
with c_in = 1 / sqrt(sigma^2 + sigma_data^2). It runs in float32 or under autocast. All other
computation uses the dtype of x, so that a sampler can keep its state in float64.

`sigma` is always (B,) or scalar. The output at sigma = 0 is finite but untrained: callers mask it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["train", "eval"]
"""Coefficients of training, or of inference with the boundary condition."""

_SMALLEST = torch.finfo(torch.float32).tiny


def _levels(x: Tensor, sigma: Tensor) -> Tensor:
    """`sigma` as (B, 1, ..., 1) in the dtype of `x`, at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    sigma = sigma.to(x.device, dtype).reshape(-1).expand(len(x))
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def _evaluate(
    net: nn.Module,
    x: Tensor,
    sigma: Tensor,
    sigma_data: float,
    labels: Tensor,
    w_embed: Tensor | None,
    dropout: torch.Generator | None,
    augment: Tensor | None = None,
) -> Tensor:
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    # ln 0 would be -inf, and its NaN gradient would survive the mask.
    c_noise = sigma.flatten().clamp(min=_SMALLEST).log() / 4
    out: Tensor = net(
        (c_in * x).to(torch.float32),
        c_noise.to(torch.float32),
        labels.to(torch.float32),
        w_embed,
        augment=augment,
        dropout=dropout,
    )
    return out.to(sigma.dtype)


def _is_eval(form: Form) -> bool:
    if form not in ("train", "eval"):
        raise ValueError(f"form must be 'train' or 'eval', got {form!r}")
    return form == "eval"


def _denoise(
    net: nn.Module,
    x: Tensor,
    sigma: Tensor,
    labels: Tensor,
    w_embed: Tensor | None,
    dropout: torch.Generator | None,
    *,
    sigma_data: float,
    boundary: float,
    augment: Tensor | None = None,
) -> Tensor:
    """c_skip x + c_out F, which is x at sigma = `boundary`."""
    sigma = _levels(x, sigma)
    excess = sigma - boundary
    c_skip = sigma_data**2 / (excess**2 + sigma_data**2)
    c_out = excess * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    out = _evaluate(net, x, sigma, sigma_data, labels, w_embed, dropout, augment)
    return c_skip * x + c_out * out


class EDMPrecond(nn.Module):
    """EDM's denoiser around a network `model`."""

    def __init__(self, model: nn.Module, *, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.sigma_data = sigma_data

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor,
        *,
        augment: Tensor | None = None,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """D(x; sigma, labels), same shape as x (B, ...); labels (B, K), zeros for null.

        `augment` (B, 9): what was done to training images; None in sampling.
        """
        return _denoise(
            self.model, x, sigma, labels, None, dropout,
            sigma_data=self.sigma_data, boundary=0.0, augment=augment,
        )  # fmt: skip


class ConsistencyPrecond(nn.Module):
    """Denoiser of a consistency model around a network `model`.

    ECT has sigma_min 0.003. Guided consistency distillation has sigma_min 0.002 and uses the form
    "eval" in training too.
    """

    def __init__(
        self, model: nn.Module, *, sigma_data: float = 0.5, sigma_min: float = 0.002
    ) -> None:
        super().__init__()
        self.model = model
        self.sigma_data, self.sigma_min = sigma_data, sigma_min

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor,
        w_embed: Tensor | None = None,
        *,
        form: Form,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """D(x; sigma, labels, w), same shape as x (B, ...); labels (B, K), zeros for null.

        The form "eval" returns x at sigma_min; "train" returns x at 0 (EDM's coefficients).
        """
        boundary = self.sigma_min if _is_eval(form) else 0.0
        sigma_data = self.sigma_data
        return _denoise(
            self.model, x, sigma, labels, w_embed, dropout, sigma_data=sigma_data, boundary=boundary
        )


class IGCTPrecond(nn.Module):
    """iGCT's two networks: the noiser `enc` and the denoiser `dec`."""

    def __init__(
        self,
        enc: nn.Module,
        dec: nn.Module,
        *,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__()
        self.enc, self.dec = enc, dec
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max

    def denoise(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor,
        w_embed: Tensor,
        *,
        form: Form,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """D(x; sigma, labels, w), same shape as x (B, ...); labels (B, K).

        The form "eval" returns x at sigma_min; "train" returns x at 0 (EDM's coefficients).
        """
        boundary = self.sigma_min if _is_eval(form) else 0.0
        sigma_data = self.sigma_data
        return _denoise(
            self.dec, x, sigma, labels, w_embed, dropout, sigma_data=sigma_data, boundary=boundary
        )

    def noise(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor,
        *,
        form: Form,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """N(x; sigma, labels) = c_skip x + (sigma_max - sigma) F, a latent of the same shape as x.

        The form "train" has c_skip = 1 and returns x at sigma_max. The form "eval" drops the skip,
        as the authors of iGCT do.
        """
        c_skip = 0.0 if _is_eval(form) else 1.0
        sigma = _levels(x, sigma)
        out = _evaluate(self.enc, x, sigma, self.sigma_data, labels, None, dropout)
        return c_skip * x + (self.sigma_max - sigma) * out
