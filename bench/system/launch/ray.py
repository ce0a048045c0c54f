"""Workers on a Ray cluster, whose machines need not share a file system.

Each worker is an actor that runs the command in a process, with copies of the files that it needs.
Files travel through Ray's object store, once per machine and content. Results come back with the
line that reports them. An actor or process that dies is started again, wherever there is room.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

from bench.system.errors import UserError, visible
from bench.system.files import write_bytes
from bench.system.launch.base import APART, Call, Launcher, Worker, register
from bench.system.launch.ray_machine import Machine, News

LOSSES = 3
"""A worker is not started again after it has died so often without asking for work."""
SHORT = 5.0
"""Seconds in which an actor answers that is alive."""
SETTINGS = ("address", "cpus", "gpus", "memory")


@register
class Ray(Launcher):
    """Actors of a Ray cluster that is running already."""

    name = "ray"
    summary = "actors on a Ray cluster, without a shared folder: --ray ADDRESS"
    shares_folders = False

    def __init__(self, settings: Mapping[str, object]) -> None:
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown:
            raise UserError(
                f"Launcher 'ray' has no setting {unknown[0]!r}. Available: {', '.join(SETTINGS)}.",
                code=2,
            )
        self._address = str(settings.get("address", "auto"))
        self._cpus = _number("cpus", settings.get("cpus", 1))
        self._gpus = None if "gpus" not in settings else _number("gpus", settings["gpus"])
        self._memory = None if "memory" not in settings else _number("memory", settings["memory"])

    def start(self, call: Call, numbers: Sequence[int]) -> list[Worker]:
        """Start the actors. They begin when the cluster has room for them."""
        ray = _connect(self._address)
        gpus = self._gpus
        if gpus is None:  # a whole one each, if there are any
            gpus = float(ray.cluster_resources().get("GPU", 0) > 0)
        wanted = {"num_cpus": self._cpus, "num_gpus": gpus, "max_concurrency": 8}
        if self._memory is not None:
            wanted["memory"] = int(self._memory * 2**30)
        actor = ray.remote(**wanted)(Machine)
        luggage = _Luggage(call)
        return [_RayWorker(number, call, actor, luggage) for number in numbers]


def _number(name: str, value: object) -> float:
    with suppress(TypeError, ValueError):
        if (number := float(str(value))) >= 0:
            return number
    raise UserError(f"{name} of launcher 'ray' is a number from 0 up, got {value!r}.", code=2)


def _import() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"Ray could not be imported ({error}): pip install 'guidance-bench[ray]'.", code=2
        ) from None
    return ray


def _connect(address: str) -> Any:
    """The module, connected to the cluster. A loopback address keeps this process on it."""
    ray = _import()
    if ray.is_initialized():
        return ray
    host = address.rpartition(":")[0]
    own = {"_node_ip_address": host} if host.startswith("127.") else {}
    with _own_signals():
        try:
            ray.init(address=address, configure_logging=False, log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = visible(str(error).strip().splitlines()[0][:300]).rstrip(".")
            raise UserError(
                f"Cannot connect to a Ray cluster at {address!r}: {first}. Start one with ray "
                "start --head, or name another with --ray HOST:PORT.",
                code=2,
            ) from None
    return ray


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of this process, which Ray replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # only the main thread may
                signal.signal(number, handler)


class _Luggage:
    """The files of a call, each put into the object store when a machine first lacks it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._references: dict[str, Any] = {}
        self._lock = Lock()

    def hashes(self) -> tuple[dict[str, str], dict[str, Path]]:
        """The hash of each file by its place, and a path for each hash."""
        files = {} if self._call.apart is None else self._call.apart.files()
        places = {place: self._hash(path) for place, path in files.items()}
        return places, {places[place]: path for place, path in files.items()}

    def _hash(self, path: Path) -> str:
        status = path.stat()
        mark = path, status.st_mtime_ns, status.st_size
        with self._lock:
            if mark not in self._hashes:
                with path.open("rb") as file:
                    self._hashes[mark] = hashlib.file_digest(file, "sha256").hexdigest()
            return self._hashes[mark]

    def pack(self, names: Sequence[str]) -> dict[str, Any]:
        """The objects of files below the results, by their name."""
        if not names:
            return {}
        assert self._call.apart is not None
        paths = {name: self._call.apart.results / name for name in names}
        return {name: self.reference(self._hash(path), path) for name, path in paths.items()}

    def reference(self, content: str, path: Path) -> Any:
        """The object of a file in the store."""
        with self._lock:
            if content not in self._references:
                self._references[content] = _import().put(path.read_bytes())
            return self._references[content]


class _RayWorker(Worker):
    def __init__(self, number: int, call: Call, actor: Any, luggage: _Luggage) -> None:
        super().__init__(number)
        modules = () if call.apart is None else call.apart.modules
        start = partial(actor.remote, sys.path, call.module, modules, str(Path.cwd()))
        self._call, self._start, self._luggage = call, start, luggage
        self._hire()
        self._status: int | None = None
        self._last_words = ""
        self._running = self._stopping = False
        self._ended = Event()

    def _hire(self) -> None:
        self._actor = self._start()
        self._lives = self._actor.missing.remote([])

    def lines(self) -> Iterator[str]:
        """Its lines, from whichever actor; a line with "lost" whenever it is started again."""
        losses = 0
        try:
            while True:
                for line in self._lines_of_one():
                    self._running = True
                    losses = 0 if '"ask"' in line else losses
                    yield line
                losses, self._running = losses + 1, False
                if self._stopping or (self._status or 0) >= 0 or losses == LOSSES:
                    return
                yield json.dumps({"lost": self._last_words})
                self._hire()
        finally:
            self._status = 1 if self._status is None else self._status
            self._ended.set()

    def _lines_of_one(self) -> Iterator[str]:
        ray = _import()
        try:
            self._begin(ray)
            while True:
                news: News = ray.get(self._actor.read.remote())
                for line, files in news.lines:
                    for name, content in reversed(list(files.items())):  # first read, last written
                        assert self._call.apart is not None
                        write_bytes(self._call.apart.results / name, content)
                    yield line
                if news.status is not None:
                    self._status, self._last_words = news.status, news.last_words
                    return
        except ray.exceptions.RayTaskError as error:
            why = visible(str(error).strip().splitlines()[-1])
            raise UserError(f"A worker of the Ray cluster could not be started: {why}") from None
        except ray.exceptions.RayError as error:
            with suppress(Exception):  # if it is only out of reach
                ray.kill(self._actor)
            self._status = -signal.SIGKILL
            self._last_words = visible(str(error).strip().splitlines()[0])

    def _begin(self, ray: Any) -> None:
        places, paths = self._luggage.hashes()
        missing = ray.get(self._actor.missing.remote(sorted(paths)))
        objects = {found: self._luggage.reference(found, paths[found]) for found in missing}
        call, apart = self._call, self._call.apart
        arguments, environment = call.arguments, call.environment(self.number)
        if apart is not None:
            arguments = apart.arguments
            environment |= {APART: "\0", **apart.environment}
        ray.get(self._actor.begin.remote(list(arguments), environment, places, objects))

    def send(self, line: str) -> None:
        """Write to the standard input of the process."""
        names = json.loads(line).get("files", ())
        self._actor.write.remote(line, self._luggage.pack(names))

    def stop(self) -> None:
        """Send SIGTERM, or remove an actor that still waits for room in the cluster."""
        if self._running or _import().wait([self._lives], timeout=0)[0]:
            self._signal(signal.SIGTERM)
        else:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL, or remove an actor that does not answer."""
        self._signal(signal.SIGKILL)
        if not self._running or self.wait(SHORT) is None:
            _import().kill(self._actor)

    def _signal(self, number: int) -> None:
        self._stopping = True
        if not self._ended.is_set():
            with suppress(Exception):  # it has gone
                self._actor.send_signal.remote(number)

    def wait(self, seconds: float) -> int | None:
        """The exit status."""
        return self._status if self._ended.wait(seconds) else None

    def last_words(self) -> str:
        """The last line of its standard error."""
        return self._last_words

    def close(self) -> None:
        """Remove the copies and the actor."""
        ray = _import()
        with suppress(Exception):  # it has gone
            ray.get(self._actor.close.remote(), timeout=SHORT)
            ray.kill(self._actor)
