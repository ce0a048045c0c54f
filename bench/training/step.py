"""One training step: batch, loss, gradient, learning rate, optimiser, average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from bench.data import Split
from bench.data.convert import one_hot, to_model
from bench.system.errors import UserError
from methods import Batch, BatchRNG, Denoiser, Method, Progress, TrainSettings
from methods.rng import derive_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RESIDENT_BYTES = 2 * 2**30
"""Data sets below this move to the GPU as a whole."""
MANY = 50_000_000
"""Parameters from which the optimiser updates them one at a time."""


class Loss(nn.Module):
    """The loss as a module's forward, as distributed wrappers need it.

    The teacher is not a submodule: it is not trained, averaged, stored or synchronised.
    """

    def __init__(self, method: Method[Any], nets: nn.Module, teacher: Denoiser | None) -> None:
        super().__init__()
        self.method, self.nets, self.teacher = method, nets, teacher

    # Mixed precision rebuilds the arguments of forward, which frozen dataclasses do not allow.
    def forward(
        self,
        x0: Tensor,
        labels: Tensor,
        decoupled: Tensor | None,
        step: int,
        total: int,
        rng: BatchRNG,
    ) -> dict[str, Tensor]:
        """The terms (B,) of the method's loss by name."""
        batch = Batch(x0, labels, decoupled, self.teacher)
        return self.method.loss(self.nets, batch, Progress(step, total), rng)


def build_nets(method: Method[Any], seed: int) -> nn.Module:
    """Networks whose initial weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        try:
            return method.build()
        except ValueError as error:
            raise UserError(f"{method.name} cannot be built: {error}.", code=2) from None


def draw_batch(split: Split, method: Method[Any], rng: BatchRNG, device: torch.device) -> Batch:
    """A batch of `rng`'s rows, drawn with replacement."""
    picked = rng.randint(len(split)).to(split.samples.device)
    x0 = to_model(split.samples[picked].to(device))
    labels = one_hot(split.labels[picked].to(device), method.data.num_classes)
    if not method.wants_decoupled:
        return Batch(x0, labels)
    other = rng.randint(len(split)).to(split.samples.device)
    return Batch(x0, labels, to_model(split.samples[other].to(device)))


def accumulate_gradients(
    loss: nn.Module,
    split: Split,
    method: Method[Any],
    rng: BatchRNG,
    progress: Progress,
    *,
    fabric: Fabric,
    micro_batch: int | None,
) -> dict[str, Tensor]:
    """Add the gradient of the mean loss over `rng`'s rows; returns the means of the terms.

    With `micro_batch` the rows go forward and backward in slices. Random draws and gradient are
    those of one batch, except for rounding and dropout, whose masks are drawn per slice.
    """
    slices = rng.split(micro_batch or len(rng))
    means: dict[str, Tensor] = {}
    for k, part in enumerate(slices):
        batch = draw_batch(split, method, part, fabric.device)
        share = len(part) / len(rng)
        # Processes exchange gradients once, with the last slice.
        waits = fabric.world_size > 1 and k + 1 < len(slices)
        with fabric.no_backward_sync(cast(Any, loss)) if waits else nullcontext():
            terms = loss(
                batch.x0, batch.labels, batch.decoupled, progress.step, progress.total, part
            )
            _check_terms(terms, method.name, len(part))
            total = torch.stack([t.mean() for t in terms.values()]).sum()
            fabric.backward(total if len(slices) == 1 else total * share)
        for name, term in terms.items():
            mean = term.detach().mean()
            means[name] = mean * share + means[name] if name in means else mean * share
    return means


def _check_terms(terms: object, method: str, rows: int) -> None:
    """UserError unless these are loss terms as `Method.loss` documents them."""
    wanted = f"loss of {method} should return a dict of names to tensors ({rows},), one number per "
    if not isinstance(terms, Mapping):
        raise UserError(f"{wanted}sample, and returned a {type(terms).__name__}.")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or tuple(term.shape) != (rows,):
            got = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise UserError(f"{wanted}sample, and {name!r} is of {got}: do not average over them.")


def near(split: Split, device: torch.device) -> Split:
    """The split on the GPU if it is small enough, else unchanged."""
    size = math.prod(split.samples.shape) * split.samples.dtype.itemsize
    if device.type != "cuda" or size >= RESIDENT_BYTES:
        return split
    return replace(split, samples=split.samples[:].to(device), labels=split.labels.to(device))


@dataclass
class Ema:
    """Exponential moving average of weights; integers are copied."""

    beta: float
    ramp: bool
    weights: dict[str, Tensor] = field(default_factory=dict)
    share: float | None = None
    """Largest half-life as a share of the images seen before a step; `ramp` is not used then."""

    @torch.no_grad()
    def update(self, nets: nn.Module, step: int) -> None:
        """Add the weights after step `step` (0-based)."""
        beta = self.beta
        if self.share is not None:
            # A half-life of h steps is beta = 2^(-1/h), whatever the batch.
            beta = min(beta, 0.5 ** (1 / (self.share * step))) if step else 0.0
        elif self.ramp:
            beta = min(beta, (1 + step) / (10 + step))
        current = nets.state_dict()
        moving = [k for k, v in current.items() if v.is_floating_point()]
        averages = [self.weights[k] for k in moving]
        torch._foreach_lerp_(averages, [current[k] for k in moving], 1.0 - beta)
        for k in current.keys() - set(moving):
            self.weights[k].copy_(current[k])


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, a constant part, then linear decay to lr * final_lr at the last step."""
    lr = settings.lr
    if step < settings.warmup:
        return lr * (step + 1) / settings.warmup
    start = settings.decay_from * settings.iterations
    if step <= start or settings.decay_from >= 1.0:
        return lr
    share = (step - start) / max(settings.iterations - 1 - start, 1.0)
    return lr * (1.0 + (settings.final_lr - 1.0) * min(share, 1.0))


def make_optimizer(settings: TrainSettings, nets: nn.Module) -> torch.optim.Optimizer:
    """RAdam or Adam over all parameters."""
    kind = torch.optim.RAdam if settings.optimizer == "radam" else torch.optim.Adam
    # One call over all parameters is faster for small networks, but not torch's default on a CPU.
    # Large networks have no memory for its temporaries, which are as large as all weights.
    small = sum(p.numel() for p in nets.parameters()) < MANY
    return kind(
        nets.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        foreach=True if small else None,
    )
