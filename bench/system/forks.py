"""A function of several items, computed in processes forked from this one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 4
"""Processes, at most."""


@contextmanager
def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Iterator[tuple[Item, Result | None]]]:
    """Apply `work`, which raises nothing, to `items`, in as many processes as there are cores.

    The block gets the items with their results, in the order in which they are done; the result is
    None if the process of an item was killed. The processes share what this one has imported and
    end with the block. They should be started while this process has no other threads, hence
    before a progress bar. Systems other than Linux compute in this process.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    count = min(MOST, cores, len(items))
    if count < 2:
        yield ((item, work(item)) for item in items)
        return
    context = get_context("fork")
    links: list[Connection] = []
    processes = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            links.append(ours)
            process = context.Process(
                target=_serve, args=(work, items, theirs, tuple(links)), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
        yield _results(work, items, links)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for link in links:
            link.close()


def _serve(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    link: Connection,
    others: Sequence[Connection],
) -> None:
    """Compute the items whose indices arrive, until the other end of `link` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command stops its processes
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # while it is open here, the end of the command would not be noticed
        other.close()
    with suppress(EOFError, OSError):
        while True:
            link.send(work(items[link.recv()]))


def _results(
    work: Callable[[Item], Result], items: Sequence[Item], links: Sequence[Connection]
) -> Iterator[tuple[Item, Result | None]]:
    waiting = iter(range(len(items)))
    working: dict[Connection, int] = {}

    def begin(link: Connection) -> None:
        if (index := next(waiting, None)) is not None:
            working[link] = index
            with suppress(OSError):  # it was killed, which `wait` reports
                link.send(index)

    for link in links:
        begin(link)
    while working:
        for ready in wait(list(working)):
            assert isinstance(ready, Connection)
            index = working.pop(ready)
            try:
                result = ready.recv()
            except (EOFError, OSError):
                yield items[index], None
                continue
            begin(ready)
            yield items[index], result
    for index in waiting:  # all were killed
        yield items[index], work(items[index])
