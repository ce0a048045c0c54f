"""Work on items that several processes share: each item is one process's at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from bench.system.claims import read_holder, try_claim
from bench.system.holder import Holder

POLL = 0.5
"""Seconds between two looks at what others hold."""

T = TypeVar("T")


def claim_path(row: Path) -> Path:
    """The claim of who makes a row, beside it."""
    return row.with_name(f".{row.stem}.claim")


def in_turn(
    items: Sequence[T],
    claim: Callable[[T], Path],
    is_done: Callable[[T], bool],
    waiting: Callable[[T, Holder | None], None],
) -> Iterator[T]:
    """Every item once, under its claim while the loop's body runs, those of others at the end.

    An item that is done is handed out without a claim. One may also have been done by another
    process between the look and the claim, so that the body looks again. `waiting` is told while
    nothing is left but what others hold; their claims expire with them.
    """
    todo = list(items)
    while todo:
        held: list[T] = []
        for item in todo:
            if is_done(item):
                yield item
                continue
            mine = try_claim(claim(item))
            if mine is None:
                held.append(item)
                continue
            try:
                yield item
            finally:
                mine.release()
        if len(held) == len(todo):
            waiting(held[0], read_holder(claim(held[0])))
            time.sleep(POLL)
        todo = held
