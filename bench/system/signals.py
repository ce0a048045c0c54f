"""Signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGUSR1 of schedulers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# Schedulers such as Slurm send SIGUSR1 before they take the machine; Windows has none.
_ASKED_BY_OTHERS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


@dataclass
class StopFlag:
    """Whether a signal has asked training to stop."""

    asked: bool = False


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a flag, so that no step is interrupted.

    A second Ctrl-C interrupts at once; other signals do not, since schedulers send several.
    """
    flag = StopFlag()

    def ask(signum: int, frame: FrameType | None) -> None:
        if flag.asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        flag.asked = True

    with _handled((signal.SIGINT, *_ASKED_BY_OTHERS), ask):
        yield flag


@contextmanager
def signals_as_interrupts() -> Iterator[StopFlag]:
    """Let SIGTERM and SIGUSR1 end a command as Ctrl-C does, which removes partial files.

    The flag shows it too, since an interrupt during an import may become another exception.
    """
    flag = StopFlag()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        flag.asked = True
        raise KeyboardInterrupt

    # Shells start background jobs with Ctrl-C ignored.
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with _handled((*([signal.SIGINT] if own else []), *_ASKED_BY_OTHERS), interrupt):
        yield flag


@contextmanager
def _handled(
    watched: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    try:
        before = {s: signal.signal(s, handler) for s in watched}
    except ValueError:  # only the main thread can watch signals
        yield
        return
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
