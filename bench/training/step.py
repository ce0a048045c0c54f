"""One training step: batch, loss, gradient, learning rate, optimiser, average of the weights."""

from __future__ import annotations

import math
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
    """The loss as a module's forward, which is where distributed wrappers look for it.

    The teacher is no submodule: it is neither trained, averaged, stored nor synchronised.
    """

    def __init__(self, method: Method[Any], nets: nn.Module, teacher: Denoiser | None) -> None:
        super().__init__()
        self.method, self.nets, self.teacher = method, nets, teacher

    # Mixed precision rebuilds the arguments of a forward, which frozen dataclasses do not allow.
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
    """Networks whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        try:
            return method.build()
        except ValueError as error:
            raise UserError(f"{method.name} cannot be built: {error}.", code=2) from None


def draw_batch(split: Split, method: Method[Any], rng: BatchRNG, device: torch.device) -> Batch:
    """The step's rows of a batch drawn with replacement."""
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

    With `micro_batch` the rows go forward and backward in slices. Their draws and the gradient
    are those of one batch, but for rounding and for dropout, whose masks are a slice's own.
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
            total = torch.stack([t.mean() for t in terms.values()]).sum()
            fabric.backward(total if len(slices) == 1 else total * share)
        for name, term in terms.items():
            mean = term.detach().mean()
            means[name] = mean * share + means[name] if name in means else mean * share
    return means


def near(split: Split, device: torch.device) -> Split:
    """A split that fits beside the networks of a GPU, moved there once; others as they are."""
    size = math.prod(split.samples.shape) * split.samples.dtype.itemsize
    if device.type != "cuda" or size >= RESIDENT_BYTES:
        return split
    return replace(split, samples=split.samples[:].to(device), labels=split.labels.to(device))


@dataclass
class Ema:
    """Exponential moving average of weights; whole numbers among them are copied."""

    beta: float
    ramp: bool
    weights: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def update(self, nets: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (0-based)."""
        beta = min(self.beta, (1 + step) / (10 + step)) if self.ramp else self.beta
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
    kinds: dict[str, type[torch.optim.RAdam | torch.optim.Adam]]
    kinds = {"radam": torch.optim.RAdam, "adam": torch.optim.Adam}
    kind = kinds[settings.optimizer]
    # One call over all parameters instead of one each, which on a CPU is not the default: quicker
    # for small networks. It makes temporaries as large as all weights together, which large ones
    # have no room for.
    small = sum(p.numel() for p in nets.parameters()) < MANY
    return kind(
        nets.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        foreach=True if small else None,
    )
