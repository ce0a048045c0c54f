"""Ctrl-C and SIGTERM as a question that the training loop answers between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopFlag:
    """Whether a signal has asked training to stop."""

    asked: bool = False


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn Ctrl-C and SIGTERM into a flag, so that a step is never cut in two.

    A second signal does not wait for the step.
    """
    flag = StopFlag()

    def ask(signum: int, frame: FrameType | None) -> None:
        if flag.asked:
            raise KeyboardInterrupt
        flag.asked = True

    watched = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {s: signal.signal(s, ask) for s in watched}
    except ValueError:  # not the main thread, where signals cannot be watched
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
