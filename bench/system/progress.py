"""Progress that can be watched on a terminal and read in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 15.0
"""Seconds between two lines of a bar that no terminal shows."""

Say = Callable[[str], None]
"""Takes one line of text for the user."""
Tick = Callable[[int], None]
"""Counts that many further images as done."""
Count = Callable[[int, int], None]
"""Takes how many samples are done, of how many."""


class Reporter:
    """How a command speaks: lines, tables, warnings and bars; silent without a console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """One line, unwrapped, as it is."""
        if self.console is not None:
            say(self.console, text)

    def show(self, table: RenderableType) -> None:
        """A table."""
        if self.console is not None:
            self.console.print(table)

    def warn(self, text: str) -> None:
        """A warning on stderr, unwrapped."""
        if self.console is not None:
            Console(stderr=True).print(
                f"Warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
            )

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        """A progress bar, to be used in a `with` statement."""
        return Bar(title, total, done, self.console)

    @contextmanager
    def counting(self, title: str) -> Iterator[Count]:
        """A bar whose total becomes known with the first count."""
        bar: Bar | None = None

        def count(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = self.bar(title, total).__enter__()
            bar.update(done)

        try:
            yield count
        finally:
            if bar is not None:
                bar.__exit__(None, None, None)


SILENT = Reporter()


def say(console: Console, text: str) -> None:
    """One line, unwrapped, as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """One bar with a message. Where no terminal is attached it prints a line now and then."""

    def __init__(self, title: str, total: int, done: int, console: Console | None) -> None:
        self.title, self.total, self.done = title, total, done
        self._console = console
        self._started, self._first = time.monotonic(), done
        self._next_line = self._started + LINE_EVERY
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if console is not None and console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[message]}"),
                console=console,
            )
            self._task = self._progress.add_task(title, total=total, completed=done, message="")

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, message: str = "") -> None:
        """Show `done` of `total` with a message."""
        news = done > self.done
        self.done = done
        if self._progress is not None:
            self._progress.update(self._task, completed=done, message=message)
            return
        now = time.monotonic()
        finished = done >= self.total and news
        if self._console is None or not (finished or now >= self._next_line):
            return
        self._next_line = now + LINE_EVERY
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("nan")
        self._console.print(
            f"{self.title}: {done}/{self.total}, {duration(left)} left. {message}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """Seconds as people say them: '40 s', '3 min', '2.5 h'; '?' where unknown."""
    if not 0 <= seconds < float("inf"):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"
