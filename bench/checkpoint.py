"""Checkpoints: safetensors, written atomically, never able to run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.tensor_files import write_tensors

STATE = "state.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """Everything that training goes on from: weights, their EMA, the optimiser's state."""

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write one state dict; equal weights give equal bytes."""
    write_tensors(path, {k: v.detach().cpu().contiguous() for k, v in weights.items()}, {})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read one state dict; a damaged file is a UserError that names it."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def check_weights(path: Path) -> None:
    """UserError if a state dict's file is cut short or not one; its values are not read."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a checkpoint that cannot be read."""
    return UserError(
        f"Checkpoint {path} is cut short or damaged ({error}); remove it and run the same bench "
        "train or bench import command again."
    )


def save_state(path: Path, state: TrainingState) -> None:
    """Write the training state into one file, so that its parts cannot belong to two steps."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part in ("weights", "ema", "optimizer")
        for name, tensor in getattr(state, part).items()
    }
    write_tensors(path, tensors, {"state": json.dumps({"step": state.step})})


def load_state(path: Path) -> TrainingState:
    """Read the training state; a damaged file is a UserError that names it."""
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            step = int(json.loads((file.metadata() or {})["state"])["step"])
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from None
    return TrainingState(step=step, **parts)


def load_into(nets: nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Load weights by name and shape; anything missing, left over or misshapen is a UserError."""
    own = nets.state_dict()
    missing = sorted(own.keys() - weights.keys())
    surplus = sorted(weights.keys() - own.keys())
    shapes = sorted(
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    )
    complaints = [
        f"{what} {', '.join(names[:4])}{' ...' if len(names) > 4 else ''} ({len(names)})"
        for what, names in (("missing", missing), ("left over", surplus), ("misshapen", shapes))
        if names
    ]
    if complaints:
        raise UserError(f"The weights in {source} do not fit the network: {'; '.join(complaints)}.")
    nets.load_state_dict(dict(weights))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors by '<parameter index>/<name>'."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, entry in state.items()
        for name, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors of `optimizer_tensors` back; hyperparameters stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
