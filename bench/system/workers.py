"""Workers: further processes of the same command, which share its work items.

A launcher (`bench.system.launch`) starts them, here or on a cluster. A worker runs the whole
command again, without output and without workers of its own. The leases of `bench.system.leases`
divide the items. A worker reports what it does to the command that started it, as lines of JSON.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from bench.system.apart import LOSSES, Loans, Offer
from bench.system.errors import UserError
from bench.system.launch.base import APART, SINCE, WORKER, Apart, Call, Launcher, Worker
from bench.system.leases import Lease, try_lease
from bench.system.progress import Bar, Reporter

PATIENCE = 60.0
"""Seconds in which a worker has to stop when it is asked to."""
LAG = 5.0
"""Seconds between a result on the disk and the report of the worker that wrote it, at most."""


@dataclass(frozen=True)
class End:
    """How an item ended, why it failed, and how long its computation took."""

    how: Literal["computed", "kept", "diverged", "failed"]
    reason: str = ""
    seconds: float = 0.0


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

    alone = True
    """Whether nobody needs to know of an item that this process has all to itself."""
    share: tuple[int, int] = 0, 1
    """The number of this process, from 0, and that of processes that share the items."""

    def computes(self) -> bool:
        """Whether this process computes items itself; otherwise it waits for those who do.

        UserError if they have all stopped.
        """
        return True

    def prepares(self) -> bool:
        """Whether this process prepares what all items need, such as the features of real images.

        Otherwise its workers do.
        """
        return self.computes()

    def take(self, lease: Path) -> Lease | None:
        """The lease of an item, None while another process holds it."""
        return try_lease(lease)

    @contextmanager
    def watched(self, progressed: Progressed, offers: Mapping[Path, Offer]) -> Iterator[None]:
        """Call `progressed` with the progress of the workers during the block.

        Workers apart from the folders of this command may take the `offers`, by their leases.
        """
        yield


_crew: Crew = Crew()


def current_crew() -> Crew:
    """The processes of this command."""
    return _crew


def join_crew(crew: Crew) -> None:
    """Make this process one of others, until it ends."""
    global _crew
    _crew = crew


def is_worker() -> bool:
    """Whether another process of the same command started this one."""
    return WORKER in os.environ


def written_by_command(path: Path) -> bool:
    """Whether the command of this worker has written a file, which both see.

    False if this is no worker.
    """
    if not is_worker() or APART in os.environ:
        return False
    try:
        return path.stat().st_mtime_ns > int(os.environ.get(SINCE, "0"))
    except FileNotFoundError:
        return False


@contextmanager
def with_workers(launcher: Launcher, call: Call, count: int, reporter: Reporter) -> Iterator[None]:
    """Let `execute` share its items among `count` processes.

    They include this one if the launcher lets it compute. At the end of the block the workers are
    stopped, as this command is.
    """
    global _crew
    if is_worker() or (launcher.computes_here and count < 2):
        yield
        return
    before, _crew = _crew, (crew := _Leader(launcher, call, count, reporter))
    interrupted = True
    try:
        if not launcher.computes_here:  # they start, or prepare, while this process plans
            crew.start(count)
        yield
        interrupted = False
    finally:
        _crew = before
        crew.stop(interrupted)


class _Leader(Crew):
    """The command and its workers."""

    def __init__(self, launcher: Launcher, call: Call, count: int, reporter: Reporter) -> None:
        self._launcher, self._reporter = launcher, reporter
        self._ready = Event()
        if call.apart is not None:
            call = replace(call, apart=replace(call.apart, files=partial(self._files, call.apart)))
        self._call = call
        self.share, self.alone = (0, count), launcher.computes_here
        self._most = count - launcher.computes_here
        self._workers: list[Worker] = []
        self._threads: list[Thread] = []
        self._holders: dict[int, str] = {}
        self._gone: set[int] = set()
        self._begun: dict[Path, Worker] = {}
        self._ended: dict[Path, End] = {}
        self._progressed: Progressed = lambda *_: None
        self._bars: dict[tuple[int, str], Bar] = {}
        self._stopping = False
        self._reason = ""
        self._alone_since: float | None = None
        self._loans = None if call.apart is None else Loans(call.apart.results)
        self._problem: Exception | None = None

    def start(self, items: int) -> None:
        wanted = min(self._most, items - self._launcher.computes_here)
        if numbers := range(len(self._workers) + 1, wanted + 1):
            new = self._launcher.start(self._call, numbers)
            self._workers += new
            for worker in new:
                self._threads.append(Thread(target=self._listen, args=(worker,), daemon=True))
                self._threads[-1].start()

    def _files(self, apart: Apart) -> Mapping[str, Path]:
        """What workers apart need, once this process has prepared it."""
        self._ready.wait()
        return {} if self._stopping else apart.files()

    def _listen(self, worker: Worker) -> None:
        try:
            for line in worker.lines():
                with suppress(ValueError, KeyError, TypeError):
                    self._hear(worker, json.loads(line))
        except Exception as error:  # such as a full disk here; the command ends with it
            self._problem = error
        code = worker.wait(PATIENCE)
        for key in [key for key in list(self._bars) if key[0] == worker.number]:
            self._bars.pop(key).__exit__()
        if code != 0 and not self._stopping and self._problem is None:
            words = worker.last_words().removeprefix("Error: ")
            self._reason = words or f"it ended with status {code}."
            self._reporter.warn(
                f"{self._called(worker)} has stopped, the others continue: {self._reason}"
            )
        self._lose(worker, self._reason)
        self._gone.add(worker.number)

    def _called(self, worker: Worker) -> str:
        """Its number, and its machine if that may be another one."""
        _, on, host = self._holders.get(worker.number, "").partition(" on ")
        return f"Worker {worker.number}" + ("" if self._launcher.computes_here else f"{on}{host}")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Note that a worker has died, alone or with the last of several tries of an item."""
        lost = [] if self._loans is None else self._loans.lose(worker.number)
        try:
            for offer in lost if not self._stopping else ():
                self._fail(offer, f"{LOSSES} workers have died with it: {reason}")
        except OSError as error:
            self._problem = error

    def _fail(self, offer: Offer, reason: str) -> None:
        offer.fail(reason)
        self._ended[offer.path] = End("failed", reason)

    def _hear(self, worker: Worker, news: dict[str, Any]) -> None:
        if self._loans is not None and "removed" in news:
            for name in news["removed"]:
                self._path(name).unlink(missing_ok=True)
        if "bar" in news:
            self._show(worker, **news)
        elif "note" in news:
            self._reporter.say(news["note"])
        elif "holder" in news:
            self._holders[worker.number] = news["holder"]
        elif "ask" in news and self._loans is not None:
            worker.send(self._loans.ask(worker.number, news["ask"]))
        elif "lost" in news:
            self._lose(worker, reason := news["lost"])
            self._reporter.warn(f"{self._called(worker)} has died and is started again: {reason}")
        elif "end" in news:
            path = self._path(news["path"])
            end = End(news["end"], news["reason"], news.get("seconds", 0.0))
            if end.how == "failed" and not self._launcher.computes_here:
                end = End("failed", f"{self._called(worker)}: {end.reason}")
            partial = None if self._loans is None else self._loans.end(path)
            if partial is not None and end.how == "computed":
                why = "has computed less than planned here"
                self._fail(partial, f"{self._called(worker)} {why}")
            else:
                self._ended[path] = end
        elif "path" in news:
            path = self._path(news["path"])
            self._begun[path] = worker
            if "images" in news:
                self._progressed(path, news["images"], news["what"])

    def _path(self, name: str) -> Path:
        return Path(name) if self._loans is None else self._loans.path(name)

    def _show(self, worker: Worker, bar: str, total: int, done: int, message: str) -> None:
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
            if worker.number in self._gone or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return self._ended.get(path)

    def includes(self, holder: str) -> bool:
        own = f"process {os.getpid()} on "  # of what it has granted
        granted = self._loans is not None and holder.startswith(own)
        return granted or holder in self._holders.values()

    def computes(self) -> bool:
        if self._problem is not None:
            raise self._problem
        if self._launcher.computes_here:
            return True
        if len(self._gone) < len(self._workers):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() > self._alone_since + LAG:  # their last results show by then
            raise UserError(f"All workers have stopped: {self._reason or 'without a reason'}")
        return False

    def prepares(self) -> bool:
        return self._loans is not None or self.computes()  # workers apart get copies

    @contextmanager
    def watched(self, progressed: Progressed, offers: Mapping[Path, Offer]) -> Iterator[None]:
        before, self._progressed = self._progressed, progressed
        if self._loans is not None:
            self._loans.offer(offers)
            if not all(offer.is_done() for offer in offers.values()):
                self._ready.set()
        try:
            yield
        finally:
            self._progressed = before

    def stop(self, interrupted: bool) -> None:
        """Stop the workers as this command was stopped, and wait for them."""
        self._stopping = True
        self._ready.set()
        if self._loans is not None:
            self._loans.close()
        mine = [worker for worker in self._workers if not worker.lasts or not interrupted]
        try:
            for worker in mine:
                worker.stop()
            deadline = time.monotonic() + PATIENCE
            for worker in mine:
                if worker.wait(max(deadline - time.monotonic(), 0.1)) is None:
                    worker.kill()
        except KeyboardInterrupt:
            for worker in mine:
                worker.kill()
            raise
        finally:
            for worker in mine:
                worker.wait(PATIENCE)
                self._threads[self._workers.index(worker)].join(1.0)
                words = worker.last_words()
                if interrupted and words.startswith("Stopped ") and "written" in words:
                    self._reporter.say(words)
                worker.close()
