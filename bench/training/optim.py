"""What follows a gradient: the learning rate, the optimiser, the average of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from methods import TrainSettings

LARGE = 50_000_000


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
    small = sum(p.numel() for p in nets.parameters()) < LARGE
    return kind(
        nets.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        foreach=True if small else None,
    )
