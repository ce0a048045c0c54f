"""Output of a command: lines, tables, and progress for terminals and logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

LINE_EVERY = 15.0
"""Seconds between two lines of a bar without a terminal."""
NEWS = 0.3
"""Seconds between two reports of a worker on the same progress."""


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
        self._live = _live_on(console)

    def say(self, text: str) -> None:
        """Print one line, neither wrapped nor read as markup."""
        if self.console is not None:
            self.console.print(text, **_PLAIN)

    def note(self, text: str) -> None:
        """Print one line about what this process did; workers pass theirs to the command."""
        self.say(text)

    def show(self, table: RenderableType) -> None:
        """Print a table."""
        if self.console is not None:
            self.console.print(table)

    def warn(self, text: str) -> None:
        """Print a warning to stderr as one line."""
        if self.console is not None:
            Console(stderr=True).print(f"Warning: {text}", style="yellow", **_PLAIN)

    def bar(self, title: str, total: int, done: int = 0, *, shared: bool = False) -> Bar:
        """A progress bar, to be used in a `with` statement.

        A `shared` one counts the work of all processes, so that workers show none.
        """
        return Bar(title, total, done, self.console, self._live)

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


class Live:
    """The bars that are open on a terminal, one line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._open = 0
        self._lock = Lock()

    def add(self, title: str, total: int, done: int) -> tuple[Progress, TaskID]:
        """Show one more bar."""
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[left]} left"),
                    TextColumn("{task.fields[message]}"),
                    console=self._console,
                )
                self._progress.start()
            self._open += 1
            task = self._progress.add_task(title, total=total, completed=done, message="", left="?")
            return self._progress, task

    def close_one(self) -> None:
        """Leave all bars as they are after the last one was closed."""
        with self._lock:
            self._open -= 1
            if self._open == 0 and self._progress is not None:
                self._progress.refresh()  # rich does this only for terminals
                self._progress.stop()
                self._progress = None


def _live_on(console: Console | None) -> Live | None:
    """The bars of a terminal, or of a notebook with ipywidgets, which rich needs there."""
    if console is None:
        return None
    moving = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return Live(console) if moving else None


class Bar:
    """A progress bar with a message; without a terminal it prints a line every 15 seconds."""

    def __init__(
        self, title: str, total: int, done: int, console: Console | None, live: Live | None = None
    ) -> None:
        self.title, self.total, self.done = title, total, done
        self._console, self._live = console, live or _live_on(console)
        self._started, self._first, self._message = time.monotonic(), done, ""
        self._next_line = self._started + LINE_EVERY
        self._task: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Bar:
        if self._live is not None:
            self._task = self._live.add(self.title, self.total, self.done)
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *rest: object) -> None:
        # Only now is nothing left: after its last sample a cell is still measured.
        ended = kind is None and self.done >= self.total > self._first
        if self._live is not None and self._task is not None:
            progress, task = self._task
            if ended:
                progress.update(task, left=duration(0))
            self._task = None
            self._live.close_one()
        elif ended and self._console is not None:
            took = duration(time.monotonic() - self._started)
            line = f"{self.title}: {self.done}/{self.total} in {took}. {self._message}"
            self._console.print(line.rstrip(), **_PLAIN)

    def update(self, done: int, message: str = "", share: float | None = None) -> None:
        """Show `done` of the total with a message.

        `share` is the part of the work since the start that is done, if the units differ in cost.
        """
        self.done, self._message = done, message
        if share is None:
            share = (done - self._first) / max(self.total - self._first, 1)
        now = time.monotonic()
        left = (now - self._started) * (1 - share) / share if share > 0 else float("nan")
        if self._task is not None:
            progress, task = self._task
            progress.update(task, completed=done, message=message, left=duration(left))
            return
        if self._console is None or now < self._next_line:
            return
        self._next_line = now + LINE_EVERY
        self._console.print(
            f"{self.title}: {done}/{self.total}, {duration(left)} left. {message}", **_PLAIN
        )


class SendingReporter(Reporter):
    """Passes notes and bars of a worker to its command, and prints nothing."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def note(self, text: str) -> None:
        """Send the line."""
        self._send(note=text)

    def bar(self, title: str, total: int, done: int = 0, *, shared: bool = False) -> Bar:
        """A bar that the command shows; none if `shared`, since the command has one."""
        if shared:
            return super().bar(title, total, done)
        return _SentBar(title, total, done, self._send)


class _SentBar(Bar):
    def __init__(self, title: str, total: int, done: int, send: Callable[..., None]) -> None:
        super().__init__(title, total, done, None)
        self._send = send
        self._next = 0.0

    def __exit__(self, kind: type[BaseException] | None = None, *rest: object) -> None:
        self._send(bar=self.title, total=self.total, done=-1, message="")

    def update(self, done: int, message: str = "", share: float | None = None) -> None:
        self.done = done
        if time.monotonic() >= self._next or done >= self.total:
            self._next = time.monotonic() + NEWS
            self._send(bar=self.title, total=self.total, done=done, message=message)


SILENT = Reporter()


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
