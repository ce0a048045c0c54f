"""Methods of latents as methods of images: their samples are decoded here, and nowhere else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.data.decoder import Decoder
from bench.training.run import Run, load_nets
from methods import Guidance, Method, SampleRNG
from methods.base import Batch, Progress
from methods.rng import BatchRNG
from methods.rules.meter import Stopwatch


class Decoded(Method[Any]):
    """`method` with decoded samples (B, *shape); `watch` times the decoder.

    Calls of the decoder are no network evaluations of the method.
    """

    def __init__(self, method: Method[Any], decoder: Decoder, shape: tuple[int, ...]) -> None:
        super().__init__(method.config, replace(method.data, shape=shape))
        self.name = method.name  # type: ignore[misc]  # of the class, elsewhere
        self.method, self.decoder, self.watch = method, decoder, Stopwatch()

    def timed_by(self, watch: Stopwatch) -> Self:
        """The same with another stopwatch."""
        other = copy.copy(self)
        other.watch = watch
        return other

    def build(self) -> nn.Module:
        """The networks of the method."""
        return self.method.build()

    def loss(
        self, nets: nn.Module, batch: Batch, progress: Progress, rng: BatchRNG
    ) -> dict[str, Tensor]:
        """The method's, of latents."""
        return self.method.loss(nets, batch, progress, rng)

    def sample(
        self, nets: nn.Module, labels: Tensor, guidance: Guidance, steps: int, rng: SampleRNG
    ) -> Tensor:
        """Images in [-1, 1] of the method's samples."""
        latents = self.method.sample(nets, labels, guidance, steps, rng)
        with self.watch.running(latents.device):
            return self.decoder(latents)

    def nfe(self, guidance: Guidance, steps: int) -> int:
        """The method's."""
        return self.method.nfe(guidance, steps)


def loaded(run: Run, device: torch.device) -> tuple[Method[Any], nn.Module]:
    """A run's method, which makes samples of its data set, and its networks on `device`."""
    nets = load_nets(run, device)
    if run.decoder is None:
        return run.method, nets
    return Decoded(run.method, run.decoder.load(device), run.data.spec.shape), nets
