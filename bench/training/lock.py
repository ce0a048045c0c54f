"""The lock of a run's folder: one process at a time works there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.system.errors import UserError
from bench.system.leases import (
    LEASE,
    PATIENCE,
    Lease,
    held_here,
    read_holder,
    tidy_leases,
    try_lease,
)
from bench.training.processes import leader_first

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TRIES = 4
PAUSE = 0.1  # seconds


@dataclass(frozen=True)
class RunLock:
    """The lock that a training has on a run's folder; its first process holds it for all."""

    name: str
    lease: Lease | None
    fabric: Fabric

    def check(self) -> None:
        """UserError in all processes if another process has taken the run over, or it is gone.

        All have to call it at the same step. To be called before anything is written.
        """
        _raise_in_all("" if self.lease is None else _loss(self.lease, self.name), self.fabric)


@contextmanager
def lock_run(folder: Path, name: str, fabric: Fabric) -> Iterator[RunLock]:
    """Lock a run's folder during the block, for all processes of a training.

    UserError in all of them if a process outside holds it.
    """
    lease, problem = None, ""
    with ExitStack() as stack:
        with leader_first(fabric) as leads:
            if leads:
                try:
                    lease = stack.enter_context(lock_folder(folder, name))
                except UserError as error:
                    problem = str(error)
        _raise_in_all(problem, fabric)
        yield RunLock(name, lease, fabric)


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[Lease]:
    """Lock a run's folder during the block; UserError if another process does.

    A lock that this process has already, as the one of a work item, remains after the block.
    """
    path = folder / LEASE
    own = held_here(path)
    if own is not None:
        yield own
        return
    tidy_leases(folder)
    lease = try_lease(path)
    if lease is None:
        raise UserError(
            f"Run {name!r} is being made by {read_holder(path) or 'another process'}: wait for it "
            "or stop it, then run the same command again (the lock of a process that is gone ends "
            f"after at most {PATIENCE:.0f} seconds)."
        )
    try:
        yield lease
    finally:
        lease.release()


def _raise_in_all(problem: str, fabric: Fabric) -> None:
    """UserError in all processes if there is a problem in the first."""
    if fabric.world_size > 1:
        problem = fabric.broadcast(problem)
    if problem:
        raise UserError(problem)


def _loss(lease: Lease, name: str) -> str:
    """How the lease was lost; '' while it is held."""
    for _ in range(TRIES):
        if lease.is_mine():
            return ""
        if read_holder(lease.path) is not None:
            return (
                f"Another process took over run {name!r}, since this one gave no sign of life for "
                f"{PATIENCE:.0f} seconds. This one stops and writes nothing more. Run the same "
                "command to continue from the last checkpoint."
            )
        time.sleep(PAUSE)  # it may be out of reach for a moment only
    return (
        f"{lease.path.parent} is gone, as when its disk was unmounted, or another process "
        f"removed its lock: training of {name!r} stops and writes nothing more. Bring it "
        "back. Run the same command to continue from the last checkpoint."
    )
