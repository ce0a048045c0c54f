"""Work on items that several processes share: each item is one process's at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from bench.system.leases import LEASE, Lease, read_holder, try_lease

POLL = 0.5
"""Seconds between two looks at what others hold, if that is little."""
POLL_MOST = 10.0
"""Seconds between two looks at much, so that many processes do not wear out a shared disk."""

T = TypeVar("T")


def lease_path(row: Path) -> Path:
    """The lease of the process that makes a row, beside it."""
    return row.with_name(f".{row.stem}{LEASE}")


def in_turn(
    items: Sequence[T],
    path: Callable[[T], Path],
    is_done: Callable[[T], bool],
    waiting: Callable[[T, str], None],
    is_ready: Callable[[T], bool] = lambda _: True,
    take: Callable[[Path], Lease | None] = try_lease,
) -> Iterator[tuple[T, bool]]:
    """Every item once, and whether it is done; one that is not is leased while the body runs.

    The items of other processes come last, and those that are not ready. Once only these are left,
    `waiting` gets the next one and its holder, again when either changes. `take` gives a lease.
    """
    todo, told = list(items), None
    while todo:
        held: list[T] = []
        for item in todo:
            if is_done(item):
                yield item, True
                continue
            lease = take(path(item)) if is_ready(item) else None
            if lease is None:
                held.append(item)
                continue
            try:
                yield item, is_done(item)  # another process may have done it just now
            finally:
                lease.release()
        if len(held) == len(todo):
            holder = read_holder(path(held[0]))
            if holder is not None and told != (held[0], holder):
                told = held[0], holder
                waiting(*told)
            time.sleep(min(POLL * max(1.0, len(held) / 16), POLL_MOST))
        todo = held
