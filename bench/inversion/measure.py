"""Latents, reconstructions, edits and their scores."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from bench.data import Split
from bench.data.convert import from_model, one_hot, to_model
from bench.evaluation.weights import find_files, verified, weights_folders
from bench.experiment.inversion_rows import Latents, Pair, Score, Share
from bench.sweep.generate import Diverged
from bench.system.progress import Tick
from methods import Guidance, Inverts, Method
from metrics.base import Extractor
from metrics.catalogue import ALEXNET
from metrics.latents import latent_stats
from metrics.perceptual import LPIPS, check_size, read_lpips
from metrics.reconstruction import mse, psnr, psnr_batch, psnr_limit, ssim, ssim_batch
from metrics.reconstruction import ssim_gaussian as gaussian

AUTHORS_BATCH = 128
JUDGE_BATCH = 256


@dataclass(frozen=True)
class Editor:
    """A method that inverts, with its networks on a device."""

    method: Method[Any]
    inverts: Inverts
    nets: nn.Module
    batch: int
    device: torch.device

    @torch.inference_mode()
    def invert(self, x0: Tensor, labels: Tensor, tick: Tick = lambda _: None) -> Tensor:
        """Latents (N, C, H, W) float32 on the CPU of images in [-1, 1] under `labels` (N,)."""
        return self._map(self.inverts.invert, "latents", x0, labels, tick)

    @torch.inference_mode()
    def edit(
        self, latents: Tensor, labels: Tensor, guidance: Guidance, tick: Tick = lambda _: None
    ) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] on the CPU of latents under `labels` (N,)."""

        def step(nets: nn.Module, z: Tensor, hot: Tensor) -> Tensor:
            return self.inverts.edit(nets, z, hot, guidance)

        return self._map(step, "edits", latents, labels, tick)

    def _map(
        self,
        step: Callable[[nn.Module, Tensor, Tensor], Tensor],
        what: str,
        x: Tensor,
        labels: Tensor,
        tick: Tick,
    ) -> Tensor:
        done = []
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            hot = one_hot(labels[start : start + self.batch], self.method.data.num_classes).to(
                self.device
            )
            out = step(self.nets, part.to(self.device), hot).float().cpu()
            if out.shape != part.shape:
                raise ValueError(
                    f"{self.method.name} gave {what} {tuple(out.shape)}, not {tuple(part.shape)}"
                )
            bad = int((~torch.isfinite(out)).flatten(1).any(1).sum())
            if bad:
                raise Diverged(f"{bad} of {len(out)} {what} are not finite")
            done.append(out)
            tick(len(out))
        return torch.cat(done)


@dataclass(frozen=True)
class Inverted:
    """Real images with their latents and reconstructions; `seconds` of inversion per image."""

    split: Split
    latents: Tensor
    reconstructed: Tensor
    seconds: float


def invert_split(editor: Editor, split: Split, tick: Tick = lambda _: None) -> Inverted:
    """Invert and reconstruct every image of a split; `tick` counts each of them twice."""
    started = time.perf_counter()
    latents = editor.invert(to_model(split.samples[:]), split.labels, tick)
    seconds = (time.perf_counter() - started) / len(split)
    back = editor.edit(latents, split.labels, Guidance(1.0), tick)
    return Inverted(split, latents, back, seconds)


def lpips_or_reason(size: Sequence[int]) -> tuple[LPIPS | None, str]:
    """LPIPS for images of size (H, W), or None and the reason why it cannot be measured."""
    found = find_files(ALEXNET)
    try:
        check_size(size)
        if not found:
            return None, f"{ALEXNET.file} is not in {weights_folders()[0]}"
        return read_lpips(verified(found[0], ALEXNET)), ""
    except (ImportError, ValueError) as error:
        return None, str(error)


def scores(
    inverted: Inverted, batch: int = AUTHORS_BATCH, perceptual: LPIPS | None = None,
    why_not: str = "",
) -> tuple[tuple[Score, ...], int]:  # fmt: skip
    """All scores of a reconstruction, and the number of images that are exact in uint8.

    The PSNR of an exact image counts as the largest finite PSNR. A score that is undefined for
    these images has a reason instead of a value.
    """
    source, back = inverted.split.samples[:], from_model(inverted.reconstructed)
    decibels = psnr(source, back)
    exact = int(decibels.isinf().sum())
    limit = psnr_limit(source.shape[1:])
    found = [
        _mean("mse", "MSE", lambda: mse(to_model(source), inverted.reconstructed)),
        _mean("psnr", "PSNR, dB", lambda: decibels.clamp(max=limit)),
        _mean("ssim", "SSIM", lambda: ssim(source, back)),
        _mean("ssim_gaussian", "SSIM, Gaussian", lambda: gaussian(source, back)),
    ]
    if perceptual is None:
        found.append(Score(name="lpips", label="LPIPS", reason=why_not))
    else:
        net = perceptual

        def distances() -> Tensor:
            return torch.cat([net(source[i], back[i]) for i in _slices(len(source))])

        found.append(_mean("lpips", "LPIPS", distances))
    found += [
        _batches("psnr_batch", "PSNR of a batch, dB", lambda: psnr_batch(source, back, batch)),
        _batches("ssim_batch", "SSIM across a batch", lambda: ssim_batch(source, back, batch)),
    ]
    return tuple(found), exact


def _slices(n: int) -> Iterator[slice]:
    return (slice(start, start + JUDGE_BATCH) for start in range(0, n, JUDGE_BATCH))


def _mean(name: str, label: str, measure: Callable[[], Tensor]) -> Score:
    try:
        values = measure().double()
    except ValueError as error:
        return Score(name=name, label=label, reason=str(error))
    se = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return Score(name=name, label=label, value=float(values.mean()), se=se)


def _batches(name: str, label: str, measure: Callable[[], list[float]]) -> Score:
    """Scores as published: the unweighted mean over batches, without an error."""
    try:
        values = measure()
    except ValueError as error:
        return Score(name=name, label=label, reason=str(error))
    value = math.fsum(values) / len(values)
    if math.isinf(value):
        return Score(name=name, label=label, reason="infinite: a batch is exact in every image")
    return Score(name=name, label=label, value=value)


def latent_row(latents: Tensor, sigma_max: float) -> Latents | None:
    """Statistics of latents; None if there are too few or they are constant."""
    try:
        return Latents(sigma_max=sigma_max, **asdict(latent_stats(latents, sigma_max)))
    except ValueError:
        return None


def judged(judge: Extractor, images: Tensor) -> Tensor:
    """The judge's classes (N,) of uint8 images (N, C, H, W)."""
    found = []
    for part in _slices(len(images)):
        logits = judge(images[part]).logits
        if logits is None:
            raise ValueError(f"extractor {judge.name} gives no logits")
        found.append(logits.argmax(1))
    return torch.cat(found)


def pairs_of(source: Tensor, target: Tensor, right: Tensor) -> tuple[Pair, ...]:
    """Counts by (source, target) class; all arguments (M,)."""
    n = Counter(zip(source.tolist(), target.tolist(), strict=True))
    hits = Counter(zip(source[right].tolist(), target[right].tolist(), strict=True))
    return tuple(Pair(source=a, target=b, n=n[a, b], right=hits[a, b]) for a, b in sorted(n))


def share(right: int, n: int) -> Share:
    """A share with its Wilson interval, which assumes independent trials."""
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return Share(right=right, n=n, low=float(interval.low), high=float(interval.high))
