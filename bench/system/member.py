"""The side of a worker: it joins the command that started it, and reports to it."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

from bench.system.apart import Borrower
from bench.system.errors import UserError
from bench.system.launch.base import APART, CODE, WORKER
from bench.system.leases import Lease
from bench.system.progress import NEWS, Reporter, SendingReporter
from bench.system.workers import Crew, End, join_crew


class _Member(Crew):
    """A worker, which reports to the command that started it."""

    def __init__(self, send: Callable[..., None], borrower: Borrower | None) -> None:
        self._send, self._borrower = send, borrower
        self._next = 0.0
        number, count = map(int, os.environ[WORKER].split("/"))
        self.share, self.alone = (number % count, count), False

    def begin(self, path: Path) -> None:
        if self._borrower is not None:
            self._borrower.begin(path)
        self._send(path=self._name(path))

    def progress(self, path: Path, images: int, what: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + NEWS
            self._send(path=self._name(path), images=images, what=what)

    def end(self, path: Path, end: End) -> None:
        send = self._send if self._borrower is None else self._borrower.end
        send(path=self._name(path), end=end.how, reason=end.reason, seconds=end.seconds)

    def take(self, lease: Path) -> Lease | None:
        return super().take(lease) if self._borrower is None else self._borrower.take(lease)

    def found(self, path: Path, *, wait: bool = False) -> End | None:
        done = self._borrower is not None and self._borrower.is_done(path)
        return End("kept") if done else None

    def _name(self, path: Path) -> str:
        return str(path) if self._borrower is None else self._borrower.name(path)


def code_hash(plugins: Iterable[Path] = ()) -> str:
    """SHA-256 of the code that this process runs: of this project, of plugin files, of torch."""
    found = hashlib.sha256(_installed_code())
    for file in plugins:
        found.update(file.read_bytes())
    return found.hexdigest()


@cache
def _installed_code() -> bytes:
    found = hashlib.sha256(version("torch").encode())
    folders = []
    for package in ("bench", "methods", "metrics"):
        spec = find_spec(package)
        folders += [] if spec is None else spec.submodule_search_locations or []
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    for file in files:
        found.update(file.read_bytes())
    return found.digest()


def join_command(plugins: Iterable[Path] = ()) -> Reporter:
    """Make this process a worker of the command that started it; returns its reporter.

    It stops, as on SIGTERM, when its standard input ends, because the command is gone. UserError
    if its code is not that of the command.
    """
    if os.environ.get(CODE, "") not in ("", code_hash(plugins)):
        raise UserError(
            f"The code on {socket.gethostname()} is not that of the command: install the same "
            "versions of guidance-bench and torch there, and the same plugins."
        )
    news = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed, such as by a plugin

    def send(**event: Any) -> None:
        with suppress(OSError):  # the command is gone
            news.write(json.dumps(event) + "\n")

    def show(**event: Any) -> None:
        send(**event)
        if borrower is not None:
            borrower.checkpoint()

    apart = os.environ.get(APART)
    borrower = None if apart is None else Borrower(Path(apart), send)
    if borrower is not None:
        atexit.register(borrower.end)  # gives back what a stopped training has saved

    def stop_with_command() -> None:
        if borrower is not None:
            borrower.listen()
        else:
            with suppress(OSError):
                os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=stop_with_command, daemon=True).start()
    send(holder=f"process {os.getpid()} on {socket.gethostname()}")
    join_crew(_Member(send, borrower))
    return SendingReporter(show)
