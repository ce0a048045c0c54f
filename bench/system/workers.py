"""Workers: further processes of the same command on this machine, which share its work items.

A worker runs the whole command again, without output and without workers of its own. The leases
of `bench.system.leases` divide the items, as they do between machines. A worker reports what it
does to the command that started it, as lines of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, Literal

from bench.system.errors import visible
from bench.system.progress import Bar, Reporter

WORKER = "GUIDANCE_BENCH_WORKER"
"""Environment variable of a worker: its number, from 1."""
PATIENCE = 60.0
"""Seconds in which a worker has to stop when it is asked to."""
NEWS = 0.3
"""Seconds between two reports of the same progress."""
LAG = 5.0
"""Seconds between a result on the disk and the report of the worker that wrote it, at most."""


@dataclass(frozen=True)
class End:
    """How an item ended, and why it failed."""

    how: Literal["computed", "kept", "diverged", "failed"]
    reason: str = ""


Progressed = Callable[[Path, int, str], None]
"""Receives an item's path, how many of its images are done, and its name."""


class Crew:
    """The processes of a command; here only this one."""

    def start(self, items: int) -> None:
        """Start as many workers as are wanted and have work in this many items."""

    def begin(self, path: Path) -> None:
        """Note that this process begins an item."""

    def progress(self, path: Path, images: int, what: str) -> None:
        """Note how much of an item this process has done."""

    def end(self, path: Path, end: End) -> None:
        """Note that this process has ended an item."""

    def found(self, path: Path, *, wait: bool = False) -> End | None:
        """How a worker ended an item, None if none did; `wait` if one is about to report it."""
        return None

    def includes(self, holder: str) -> bool:
        """Whether the holder of a lease ("process 123 on host") is one of the workers."""
        return False

    @contextmanager
    def watched(self, progressed: Progressed) -> Iterator[None]:
        """Call `progressed` with the progress of the workers during the block."""
        yield


_crew: Crew = Crew()


def current_crew() -> Crew:
    """The processes of this command."""
    return _crew


def is_worker() -> bool:
    """Whether another process of the same command started this one."""
    return WORKER in os.environ


@contextmanager
def with_workers(count: int, gpus: int, reporter: Reporter) -> Iterator[None]:
    """Let `execute` share its items among `count` processes, this one included.

    With several GPUs each process has one of them. At the end of the block the workers are
    stopped, as this command is.
    """
    global _crew
    if count < 2 or is_worker():
        yield
        return
    before, _crew = _crew, (crew := _Leader(count, gpus, reporter))
    interrupted = True
    try:
        yield
        interrupted = False
    finally:
        _crew = before
        crew.stop(interrupted)


# The side of the command.


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    thread: Thread | None = None

    def last_words(self) -> str:
        """The last line of its standard error."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return visible(lines[-1]) if lines else ""


class _Leader(Crew):
    """The command and its workers."""

    def __init__(self, count: int, gpus: int, reporter: Reporter) -> None:
        self._count, self._gpus, self._reporter = count, gpus, reporter
        self._workers: list[_Worker] = []
        self._begun: dict[Path, _Worker] = {}
        self._ended: dict[Path, End] = {}
        self._progressed: Progressed = lambda *_: None
        self._bars: dict[tuple[int, str], Bar] = {}
        self._stopping = False

    def start(self, items: int) -> None:
        for number in range(len(self._workers) + 1, min(self._count, items)):
            worker = self._spawn(number)
            self._workers.append(worker)
            worker.thread = Thread(target=self._listen, args=(worker,), daemon=True)
            worker.thread.start()

    def _spawn(self, number: int) -> _Worker:
        # As multiprocessing's "spawn" does: the same modules, wherever this process found them.
        code = f"import sys; sys.path[:] = {sys.path!r}; from bench.cli import main; main()"
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker has ended
        process = subprocess.Popen(
            [sys.executable, "-c", code, *sys.argv[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, WORKER: str(number), **_one_gpu(number, self._gpus)},
            start_new_session=True,  # Ctrl-C reaches only the command, which then asks the workers
        )
        return _Worker(number, process, errors)

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            with suppress(ValueError, KeyError, TypeError):
                self._hear(worker, json.loads(line))
        code = worker.process.wait()
        for key in [key for key in list(self._bars) if key[0] == worker.number]:
            self._bars.pop(key).__exit__()
        if code and not self._stopping:
            why = worker.last_words() or f"it ended with status {code}"
            self._reporter.warn(f"Worker {worker.number} has stopped, the others continue: {why}")

    def _hear(self, worker: _Worker, news: dict[str, Any]) -> None:
        if "bar" in news:
            self._show(worker, **news)
        elif "note" in news:
            self._reporter.say(news["note"])
        elif "end" in news:
            self._ended[Path(news["path"])] = End(news["end"], news["reason"])
        else:
            path = Path(news["path"])
            self._begun[path] = worker
            if "images" in news:
                self._progressed(path, news["images"], news["what"])

    def _show(self, worker: _Worker, bar: str, total: int, done: int, message: str) -> None:
        key = worker.number, bar
        if done < 0:
            if key in self._bars:
                self._bars.pop(key).__exit__()
            return
        if self._stopping:
            return
        if key not in self._bars:
            self._bars[key] = self._reporter.bar(bar, total, done).__enter__()
        self._bars[key].update(done, message)

    def found(self, path: Path, *, wait: bool = False) -> End | None:
        worker, deadline = self._begun.get(path), time.monotonic() + LAG
        while wait and worker is not None and path not in self._ended:
            if worker.process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return self._ended.get(path)

    def includes(self, holder: str) -> bool:
        return any(holder.startswith(f"process {w.process.pid} on ") for w in self._workers)

    @contextmanager
    def watched(self, progressed: Progressed) -> Iterator[None]:
        before, self._progressed = self._progressed, progressed
        try:
            yield
        finally:
            self._progressed = before

    def stop(self, interrupted: bool) -> None:
        """Stop the workers as this command was stopped, and wait for them."""
        self._stopping = True
        try:
            for worker in self._workers:
                worker.process.terminate()
            deadline = time.monotonic() + PATIENCE
            for worker in self._workers:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            for worker in self._workers:
                worker.process.kill()
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            for worker in self._workers:
                worker.process.wait()
                if worker.thread is not None:
                    worker.thread.join(1.0)
                with suppress(OSError):
                    assert worker.process.stdin is not None
                    worker.process.stdin.close()
                words = worker.last_words()
                if interrupted and words.startswith("Stopped ") and "written" in words:
                    self._reporter.say(words)
                worker.errors.close()


def _one_gpu(number: int, gpus: int) -> dict[str, str]:
    """The variable that leaves a worker one of several GPUs; the command itself has the first."""
    if gpus < 2:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible_ones = named.split(",") if named else [str(i) for i in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": visible_ones[number % len(visible_ones)]}


# The side of a worker.


class _Member(Crew):
    """A worker, which reports to the command that started it."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._next = 0.0

    def begin(self, path: Path) -> None:
        self._send(path=str(path))

    def progress(self, path: Path, images: int, what: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + NEWS
            self._send(path=str(path), images=images, what=what)

    def end(self, path: Path, end: End) -> None:
        self._send(path=str(path), end=end.how, reason=end.reason)


class _WorkerReporter(Reporter):
    """Passes notes and bars to the command, and prints nothing."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def note(self, text: str) -> None:
        self._send(note=text)

    def bar(self, title: str, total: int, done: int = 0, *, shared: bool = False) -> Bar:
        if shared:
            return super().bar(title, total, done)
        return _SentBar(title, total, done, self._send)


class _SentBar(Bar):
    def __init__(self, title: str, total: int, done: int, send: Callable[..., None]) -> None:
        super().__init__(title, total, done, None)
        self._send = send
        self._next = 0.0

    def __exit__(self, *exception: object) -> None:
        self._send(bar=self.title, total=self.total, done=-1, message="")

    def update(self, done: int, message: str = "") -> None:
        self.done = done
        if time.monotonic() >= self._next or done >= self.total:
            self._next = time.monotonic() + NEWS
            self._send(bar=self.title, total=self.total, done=done, message=message)


def join_command() -> Reporter:
    """Make this process a worker of the command that started it; returns its reporter.

    It stops, as on SIGTERM, when the command is gone.
    """
    global _crew
    news = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed, such as by a plugin

    def send(**event: Any) -> None:
        with suppress(OSError):  # the command is gone
            news.write(json.dumps(event) + "\n")

    def stop_with_command() -> None:
        with suppress(OSError):
            os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=stop_with_command, daemon=True).start()
    _crew = _Member(send)
    return _WorkerReporter(send)
