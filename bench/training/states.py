"""The two newest checkpoints of a training: one to go on from, one for when that is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.system.errors import UserError
from bench.training.checkpoint import STATE, TrainingState, load_state, save_state

PREVIOUS = "state.previous.safetensors"


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
        tell(f"{newest} is missing: training goes on from the checkpoint before, {_at(state)}.")
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
            f"{newest} is cut short or damaged: training goes on from the checkpoint before, "
            f"{_at(state)}, and makes the steps since then again."
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


def kept(folder: Path) -> str:
    """Which checkpoint there is to go on from, in words."""
    for name in (STATE, PREVIOUS):
        if (folder / name).exists():
            return f"the last good checkpoint is {folder / name}"
    return "no checkpoint yet"


def _at(state: TrainingState) -> str:
    return f"of step {state.step}"
