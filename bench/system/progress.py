"""Output of a command: lines, tables, and progress for terminals and logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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
"""Seconds between two lines of a bar without a terminal."""


_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}

Say = Callable[[str], None]
"""Prints one line of text for the user."""
Tick = Callable[[int], None]
"""Counts this many more images as done."""
Count = Callable[[int, int], None]
"""Receives the number of samples done and their total."""


class Reporter:
    """How a command speaks: lines, tables, warnings and bars; silent without a console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print one line, neither wrapped nor read as markup."""
        if self.console is not None:
            self.console.print(text, **_PLAIN)

    def show(self, table: RenderableType) -> None:
        """Print a table."""
        if self.console is not None:
            self.console.print(table)

    def warn(self, text: str) -> None:
        """Print a warning to stderr as one line."""
        if self.console is not None:
            Console(stderr=True).print(f"Warning: {text}", style="yellow", **_PLAIN)

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        """A progress bar, to be used in a `with` statement."""
        return Bar(title, total, done, self.console)

    @contextmanager
    def counting(self, title: str) -> Iterator[Count]:
        """A bar whose total becomes known with the first count."""
        with ExitStack() as stack:
            bar: Bar | None = None

            def count(done: int, total: int) -> None:
                nonlocal bar
                bar = bar or stack.enter_context(self.bar(title, total))
                bar.update(done)

            yield count


SILENT = Reporter()


class Bar:
    """A progress bar with a message; without a terminal it prints a line every 15 seconds."""

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

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, message: str = "") -> None:
        """Show `done` of the total with a message."""
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
            f"{self.title}: {done}/{self.total}, {duration(left)} left. {message}", **_PLAIN
        )


def duration(seconds: float) -> str:
    """Seconds in words: '40 s', '3 min', '2.5 h'; '?' if unknown."""
    if not 0 <= seconds < float("inf"):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"
