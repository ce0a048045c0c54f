"""The lock of a run's folder: one process at a time works there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.system.claims import PATIENCE, Claim, read_holder, tidy_claims, try_claim
from bench.system.errors import UserError
from bench.training.processes import leader_first

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLAIM = ".claim"
TRIES = 4
PAUSE = 0.1  # seconds


@dataclass(frozen=True)
class RunLock:
    """The lock that a training has on a run's folder; its first process holds it for all."""

    name: str
    claim: Claim | None
    fabric: Fabric

    def check(self) -> None:
        """UserError in all processes if another process has taken the run over, or it is gone.

        All have to call it at the same step. To be called before anything is written.
        """
        problem = "" if self.claim is None else _loss(self.claim, self.name)
        if self.fabric.world_size > 1:
            problem = self.fabric.broadcast(problem)
        if problem:
            raise UserError(problem)


@contextmanager
def lock_run(folder: Path, name: str, fabric: Fabric) -> Iterator[RunLock]:
    """RunLock a run's folder during the block, for all processes of a training.

    UserError in all of them if a process outside holds it.
    """
    claim, problem = None, ""
    with leader_first(fabric) as leads:
        if leads:
            claim, problem = _try(folder, name)
    if fabric.world_size > 1:
        problem = fabric.broadcast(problem)
    if problem:
        raise UserError(problem)
    try:
        yield RunLock(name, claim, fabric)
    finally:
        if claim is not None:
            claim.release()


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[None]:
    """RunLock a run's folder during the block; UserError if another process does."""
    claim, problem = _try(folder, name)
    if claim is None:
        raise UserError(problem)
    try:
        yield
    finally:
        claim.release()


def _try(folder: Path, name: str) -> tuple[Claim | None, str]:
    """The claim, or why there is none."""
    path = folder / CLAIM
    tidy_claims(folder)
    for attempt in range(TRIES):
        if attempt:  # a void claim is cleared away in turns
            time.sleep(PAUSE)
        claim = try_claim(path)
        if claim is not None:
            return claim, ""
    holder = read_holder(path)
    who = f"by {holder}" if holder else "by another process"
    return None, (
        f"Run {name!r} is being made {who}: wait for it or stop it, then run the same command "
        f"again (the lock of a process that is gone ends after at most {PATIENCE:.0f} seconds)."
    )


def _loss(claim: Claim, name: str) -> str:
    """How the claim was lost; '' while it is held."""
    if not _is_lost(claim):
        return ""
    if read_holder(claim.path) is None:
        return (
            f"{claim.path.parent} is gone, as when its disk was unmounted, or another process "
            f"removed its lock: training of {name!r} stops and writes nothing more. Bring it "
            "back. Run the same command to continue from the last checkpoint."
        )
    return (
        f"Another process took over run {name!r}, since this one gave no sign of life for "
        f"{PATIENCE:.0f} seconds. This one stops and writes nothing more. Run the same command "
        "to continue from the last checkpoint."
    )


def _is_lost(claim: Claim) -> bool:
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        if claim.is_mine():
            return False
        if read_holder(claim.path) is not None:
            return True
    return True  # gone, and not only out of reach for a moment
