"""Checkpoints: safetensors files, written atomically; reading one never runs code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.system.errors import UserError, shown
from bench.system.failures import system_error
from bench.system.files import atomic_path, check_regular
from bench.system.progress import Say

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"
CHECKSUM = "guidance-bench"
"""Metadata entry of a weights file that holds the checksum; files of other programs lack it."""
CHANGED = "its content does not match its stored SHA-256"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrainingState:
    """All that training resumes from: weights, their moving average, the optimiser's state."""

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rollbacks: tuple[str, ...] = ()
    """One sentence per return to an earlier step; their number selects the random draws."""


def content_hash(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 of `about` and of names, types, shapes and bytes, in the order of the names.

    A file cannot hold its own hash: this one is in its header and covers everything else.
    """
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    before: Callable[[], None] = lambda: None,
) -> None:
    """Write a safetensors file atomically; `before` is called before it is renamed to `path`.

    OSError that names `path` if it cannot be written; the library raises its own error.
    """
    try:
        with atomic_path(path) as temporary:
            save_file(dict(tensors), temporary, metadata=dict(metadata) or None)
            before()
    except SafetensorError as error:
        refusal = system_error(error)
        if refusal is None:
            raise
        raise OSError(refusal.errno, refusal.strerror, str(path)) from error


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write one state dict with its checksum; equal weights give equal bytes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    # One entry, since the format keeps no order of several.
    write_tensors(path, tensors, {CHECKSUM: f"sha256 {content_hash(tensors)}"})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read one state dict; UserError for a missing file, or if a single bit is damaged.

    Older files, and those of other programs, have no checksum: only their format is checked.
    """
    try:
        check_regular(path)
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(CHECKSUM)
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
    if stored is not None and stored != f"sha256 {content_hash(tensors)}":
        raise damaged(path, CHANGED)
    return tensors


def check_size(build: Callable[[], nn.Module], paths: Sequence[Path]) -> None:
    """UserError if a network has more parameters than its files have bytes.

    Settings and weights may be untrusted: nothing is allocated before this check.
    """
    for path in paths:
        try:
            check_regular(path)
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from None
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except Exception:  # not every network can be built on the meta device
        return
    size = sum(path.stat().st_size for path in paths)
    if count > size:
        names = " and ".join(map(str, paths))
        raise UserError(
            f"The weights in {names} do not fit the network: it has {count:,} parameters, and "
            f"they have {size:,} bytes."
        )


def damaged(path: Path, error: Exception | str) -> UserError:
    """The error for a checkpoint that cannot be read."""
    return UserError(
        f"Checkpoint {path} is cut short or damaged ({error}); remove it and run the same bench "
        "train or bench import command again."
    )


def save_state(path: Path, state: TrainingState, before: Callable[[], None] = lambda: None) -> None:
    """Write the training state into one file, so that all its parts are of one step.

    `before` is called after the content is written, just before the file gets its name.
    """
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part in ("weights", "ema", "optimizer")
        for name, tensor in getattr(state, part).items()
    }
    about: dict[str, Any] = {"step": state.step}
    if state.rollbacks:
        about["rollbacks"] = list(state.rollbacks)
    about["sha256"] = content_hash(tensors, _text(about))
    write_tensors(path, tensors, {"state": json.dumps(about)}, before)


def load_state(path: Path) -> TrainingState:
    """Read the training state; UserError that names the file if it is damaged."""
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}}
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["state"])
            stored = about.pop("sha256", None)
            step, rollbacks = int(about["step"]), tuple(map(str, about.get("rollbacks", ())))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
    except (
        SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise damaged(path, error) from None
    if stored is not None and stored != content_hash(tensors, _text(about)):
        raise damaged(path, CHANGED)
    return TrainingState(step=step, rollbacks=rollbacks, **parts)


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


def save_newest(folder: Path, state: TrainingState, *, keep_previous: bool = False) -> None:
    """Write the newest checkpoint and keep the last one as the previous.

    With `keep_previous` an existing previous one stays instead. One of the two is whole at any
    moment. Needs the disk space of three while writing.
    """
    newest, previous = folder / STATE, folder / PREVIOUS

    def set_aside() -> None:
        if newest.exists() and not (keep_previous and previous.exists()):
            newest.replace(previous)

    save_state(newest, state, before=set_aside)


def load_newest(
    folder: Path, tell: Say = lambda _: None, every: int = 1
) -> tuple[TrainingState, Path] | None:
    """The newest checkpoint that is whole, with its file; None if there is none.

    Prefers one whose step is a multiple of `every`: another was written only because training was
    asked to stop, so a training without stops would not have it. `tell` gets a message if the
    newest one is missing or damaged. UserError if none is whole.
    """
    newest, previous = folder / STATE, folder / PREVIOUS
    if not newest.exists():
        if not previous.exists():
            return None
        state, used = load_state(previous), previous
        tell(f"{newest} is missing: training resumes from the previous one, of step {state.step}.")
    else:
        try:
            state, used = load_state(newest), newest
        except UserError as error:
            try:
                state, used = load_state(previous), previous
            except UserError:
                raise error from None
            tell(
                f"{newest} is cut short or damaged: training resumes from the previous one, of "
                f"step {state.step}."
            )
    if state.step % every:
        with suppress(UserError):
            due = load_state(previous)
            if due.step % every == 0:
                return due, previous
    return state, used


def remove_states(folder: Path) -> None:
    """Remove both checkpoints of a finished training."""
    for path in (folder / PREVIOUS, folder / STATE):
        if path.exists():  # a read-only disk refuses to remove even a missing file
            path.unlink(missing_ok=True)


def trained_steps(folder: Path) -> int:
    """The step of the newest checkpoint by its header, 0 without one that can be read."""
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            return int(json.loads(file.metadata()["state"])["step"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return 0


def last_good(folder: Path) -> str:
    """The checkpoint to resume from, in words."""
    for name in (STATE, PREVIOUS):
        if (folder / name).exists():
            return f"the last good checkpoint is {folder / name}"
    return "no checkpoint yet"


def misfit(own: Shapes, given: Shapes, listed: int = 4) -> str:
    """How the tensors `given` differ from a network's `own` by name and shape; '' if they fit."""
    differing = {
        "missing": sorted(own.keys() - given.keys()),
        "left over": sorted(given.keys() - own.keys()),
        "misshapen": [
            f"{name} {given[name]} for {own[name]}"
            for name in sorted(own.keys() & given.keys())
            if given[name] != own[name]
        ],
    }
    return "; ".join(
        f"{what} ({len(names)}): {', '.join(map(shown, names[:listed]))}"
        + (" ..." if len(names) > listed else "")
        for what, names in differing.items()
        if names
    )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def load_into(nets: nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Load weights by name and shape; UserError for any missing, left over or misshapen one."""
    differing = misfit(shapes_of(nets.state_dict()), shapes_of(weights))
    if differing:
        raise UserError(f"The weights in {source} do not fit the network: {differing}.")
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
    """Restore the tensors of `optimizer_tensors`; hyperparameters are unchanged."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
