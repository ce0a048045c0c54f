"""Checkpoints: safetensors, written atomically, never able to run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.system.errors import UserError
from bench.system.files import check_regular
from bench.system.tensor_files import write_tensors

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"
CHECKSUM = "guidance-bench"
"""The entry of a weights file's metadata that holds the checksum; files of others have none."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that training resumes from: weights, their EMA, the optimiser's state."""

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rollbacks: tuple[str, ...] = ()
    """A sentence for every time that training went back to an earlier step; decides the draws."""


def content_hash(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of the names, and of `about`.

    A file cannot hold its own hash; this one lies in its header and covers everything else.
    """
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write one state dict with its checksum; equal weights give equal bytes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    # One entry, since the format keeps no order of several.
    write_tensors(path, tensors, {CHECKSUM: f"sha256 {content_hash(tensors)}"})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read one state dict; a damaged file, to the last bit, is a UserError that names it.

    Files of others, and older ones, have no checksum and are taken as they are.
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


def check_weights(path: Path) -> None:
    """UserError if a state dict's file is cut short, damaged or not one."""
    load_weights(path)


def check_size(build: Callable[[], nn.Module], paths: Sequence[Path]) -> None:
    """UserError if a network has more parameters than the bytes of its files can be.

    Settings and weights may be somebody's: nothing is allocated before they are compared.
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
    except Exception:  # not every network can be described without being made
        return
    size = sum(path.stat().st_size for path in paths)
    if count > size:
        names = " and ".join(map(str, paths))
        raise UserError(
            f"The weights in {names} do not fit the network: it has {count:,} parameters, and "
            f"these are {size:,} bytes."
        )


CHANGED = "its content does not have the SHA-256 that was written with it"


def damaged(path: Path, error: Exception | str) -> UserError:
    """The error for a checkpoint that cannot be read."""
    return UserError(
        f"Checkpoint {path} is cut short or damaged ({error}); remove it and run the same bench "
        "train or bench import command again."
    )


def save_state(path: Path, state: TrainingState, before: Callable[[], None] = lambda: None) -> None:
    """Write the training state into one file, so that its parts cannot belong to two steps.

    `before` is called once the content is written, just before it takes its name.
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
    """Read the training state; a damaged file is a UserError that names it."""
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
    """Write the newest checkpoint; the one that was the newest is kept beside it.

    With `keep_previous` the one before stays instead, where there is one. At every moment one of
    the two is whole under its name. Takes the room of three while writing.
    """
    newest, previous = folder / STATE, folder / PREVIOUS

    def set_aside() -> None:
        if newest.exists() and not (keep_previous and previous.exists()):
            newest.replace(previous)

    save_state(newest, state, before=set_aside)


def load_newest(
    folder: Path, tell: Callable[[str], None] = lambda _: None
) -> tuple[TrainingState, Path] | None:
    """The newest checkpoint that is whole, with its file; None if there is none.

    `tell` gets a sentence if that is the previous one. UserError if no checkpoint is whole.
    """
    newest, previous = folder / STATE, folder / PREVIOUS
    if not newest.exists():
        if not previous.exists():
            return None
        state = load_state(previous)
        tell(f"{newest} is missing: training continues from the checkpoint before, {_at(state)}.")
        return state, previous
    try:
        return load_state(newest), newest
    except UserError as error:
        if not previous.exists():
            raise
        try:
            state = load_state(previous)
        except UserError:
            raise error from None
        tell(
            f"{newest} is cut short or damaged: training continues from the checkpoint before, "
            f"{_at(state)}, and repeats the steps since then."
        )
        return state, previous


def load_due(
    folder: Path, every: int, tell: Callable[[str], None] = lambda _: None
) -> tuple[TrainingState, Path] | None:
    """`load_newest`, but the one before if the newest was only made because a stop was asked for.

    That is one of a step that is no multiple of `every`; a training that nobody stopped has none.
    """
    found = load_newest(folder, tell)
    if found is None or found[0].step % every == 0:
        return found
    try:
        state = load_state(folder / PREVIOUS)
    except UserError:
        return found
    return (state, folder / PREVIOUS) if state.step % every == 0 else found


def settle(folder: Path, used: Path) -> None:
    """Make the checkpoint that was loaded the newest, so that a damaged one is never kept."""
    if used.name == PREVIOUS:
        used.replace(folder / STATE)


def remove_states(folder: Path) -> None:
    """Remove both checkpoints of a training that is finished."""
    for path in (folder / PREVIOUS, folder / STATE):
        if path.exists():  # a disk that is read-only refuses to remove even what is not there
            path.unlink(missing_ok=True)


def last_good(folder: Path) -> str:
    """Which checkpoint there is to go on from, in words."""
    for name in (STATE, PREVIOUS):
        if (folder / name).exists():
            return f"the last good checkpoint is {folder / name}"
    return "no checkpoint yet"


def _at(state: TrainingState) -> str:
    return f"of step {state.step}"


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
