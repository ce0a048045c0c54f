"""Invertible guided consistency training: one-step guidance without a diffusion model.

Source: Hsu, Kao, Balestriero, "Beyond and Free from Diffusion: Invertible Guided Consistency
Training" (arXiv 2502.05391).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from methods.base import Batch, Inverts, Method, Progress
from methods.consistency import smaller_sigma, stage_at, training_sigma
from methods.consistency_model import step_limit
from methods.guidance import Guidance
from methods.guidance_embedding import embed_guidance
from methods.igct_config import PRESETS, IGCTConfig
from methods.igct_loss import (
    GuidedDraws,
    guided_consistency_loss,
    guided_probability,
    inverse_consistency_loss,
    reconstruction_loss,
)
from methods.nets.config import build_net
from methods.precond import IGCTPrecond
from methods.registry import register
from methods.rng import BatchRNG, SampleRNG
from methods.samplers import sample_consistency
from methods.settings import Preset
from methods.warm_start import denoiser_weights


@register
class IGCT(Method[IGCTConfig], Inverts):
    """A guided one-step denoiser and a one-step noiser, trained on data without a teacher."""

    name = "igct"
    summary = "invertible guided consistency training, 1-2 steps (Hsu, Kao, Balestriero 2025)"
    guidance = "embedded"
    config_type = IGCTConfig
    wants_decoupled = True
    presets: ClassVar[Mapping[str, Preset]] = PRESETS

    def build(self) -> nn.Module:
        """`IGCTPrecond`: the noiser under `enc`, the denoiser under `dec`."""
        c = self.config
        return IGCTPrecond(
            build_net(c.net, self.data),
            build_net(c.net, self.data, guidance_dim=c.guidance_dim),
            sigma_data=c.sigma_data,
            sigma_min=c.sigma_min,
            sigma_max=c.sigma_max,
        )

    def initial_weights(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Use the weights of a single network for the denoiser, or all weights of an iGCT run.

        A single network has no layer for the guidance embedding. That layer starts at zero, so
        that guidance has no effect at first.
        """
        if not any(name.startswith("model.") for name in source):
            return dict(source)
        return denoiser_weights(source, self.build, "dec")

    def _embed(self, w: Tensor) -> Tensor:
        return embed_guidance(w, self.config.guidance_dim, self.config.guidance_scale)

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """Guided, inverse and (every `reconstruction_every` steps) reconstruction loss."""
        if batch.decoupled is None:
            raise ValueError("igct needs decoupled images as well as labelled ones")
        c = self.config
        pair = cast(IGCTPrecond, nets)
        x0, labels = batch.x0, batch.labels
        n, eps, u = rng.randn(), rng.randn(*x0.shape[1:]), rng.rand()
        stage = stage_at(progress, c.first_stage, c.last_stage, c.stage_iterations)
        t = training_sigma(n, c.p_mean, c.p_std, c.sigma_max)
        guided = rng.rand() < guided_probability(t, c.window, c.window_power, c.p_max)
        draws = GuidedDraws(
            t=t,
            r=smaller_sigma(t, stage, c.q, c.k, c.b),
            w=c.w_max * u,
            guided=guided,
            eps=eps,
        )

        def denoise(x: Tensor, sigma: Tensor, labels: Tensor, w: Tensor) -> Tensor:
            return pair.denoise(
                x, sigma, labels, self._embed(w), form="train", dropout=rng.dropout("denoiser")
            )

        def noise(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return pair.noise(x, sigma, labels, form="train", dropout=rng.dropout("noiser"))

        t_inv = training_sigma(
            n,
            c.p_mean if c.inverse_p_mean is None else c.inverse_p_mean,
            c.p_std if c.inverse_p_std is None else c.inverse_p_std,
            c.sigma_max,
        )
        r_inv = smaller_sigma(t_inv, stage, c.q, c.k, c.b)
        terms = {
            "guided": guided_consistency_loss(denoise, x0, labels, batch.decoupled, draws, c.c_h),
            "inverse": inverse_consistency_loss(
                noise,
                x0,
                labels,
                r_inv.clamp(min=c.sigma_min),
                t_inv.clamp(min=c.sigma_min),
                eps,
                c.c_h,
                c.sigma_data / c.sigma_max,
            ),
        }
        if progress.step % c.reconstruction_every == 0:
            fresh = rng.randn(*x0.shape[1:])
            terms["reconstruction"] = c.reconstruction_at(progress.step) * reconstruction_loss(
                denoise, noise, x0, labels, fresh, c.c_h, c.sigma_min, c.sigma_max
            )
        return terms

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """One call at sigma_max, then one at each middle level after adding fresh noise.

        The network receives w = g - 1 at every step.
        """
        c = self.config
        return sample_consistency(
            lambda x, sigma: self._denoise(nets, x, sigma, labels, guidance),
            (c.sigma_max, *c.middle_sigma[: steps - 1]),
            lambda: rng.randn(self.data.shape, labels.device),
            clamp=c.clamp,
            between=c.clamp_between,
        )

    def _denoise(
        self, nets: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor, guidance: Guidance
    ) -> Tensor:
        w = torch.full((len(x),), guidance.w, device=x.device, dtype=torch.float32)
        return cast(IGCTPrecond, nets).denoise(x, sigma, labels, self._embed(w), form="eval")

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """One evaluation per step, with or without guidance."""
        return steps

    def supports(self, guidance: Guidance, steps: int) -> str | None:
        """Guidance scales within the range of training, and one configured level per step."""
        top = Guidance.from_w(self.config.w_max).scale
        if not 1.0 <= guidance.scale <= top:
            return f"trained for guidance 1 to {top:g}, not {guidance.scale:g}"
        return step_limit(steps, self.config.middle_sigma)

    def invert(self, nets: nn.Module, x0: Tensor, labels: Tensor) -> Tensor:
        """One call of the noiser at sigma_min."""
        c = self.config
        sigma = torch.full((len(x0),), c.sigma_min, device=x0.device)
        return cast(IGCTPrecond, nets).noise(x0, sigma, labels, form=c.noiser_form)

    def edit(self, nets: nn.Module, latent: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
        """One call of the denoiser at sigma_max."""
        c = self.config
        sigma = torch.full((len(latent),), c.sigma_max, device=latent.device)
        out = self._denoise(nets, latent, sigma, labels, guidance)
        return out.clamp(-1, 1) if c.clamp else out

    def latent_sigma(self) -> float:
        """sigma_max, the noise level of the noiser's output."""
        return self.config.sigma_max

    def inversion_nfe(self) -> int:
        """One call of the noiser."""
        return 1

    def edit_nfe(self, guidance: Guidance) -> int:
        """One call of the denoiser, with or without guidance."""
        return 1
