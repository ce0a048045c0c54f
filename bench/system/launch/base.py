"""What a launcher is: it starts the workers of a command, and carries their lines back.

A launcher for another scheduler is one class, decorated with `register`, in a plugin file or a
package with the entry point `guidance_bench.launchers`. `bench.plugins.launcher_conformance` tests
it. What a worker does is none of its business: see `bench.system.workers`.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from bench.system.errors import UserError, check_name, check_whole, unknown

WORKER = "GUIDANCE_BENCH_WORKER"
"""Environment variable of a worker: its number, from 1, and that of processes: "1/8"."""
CODE = "GUIDANCE_BENCH_CODE"
"""Environment variable of a worker: the hash of the code that it has to run."""
SINCE = "GUIDANCE_BENCH_SINCE"
"""Environment variable of a worker: when its command began, in nanoseconds since 1970."""
APART = "GUIDANCE_BENCH_APART"
"""Environment variable of a worker apart from the folders of its command: that of its copies."""
RESULTS = "results"
"""The copy of the results in this folder."""


@dataclass(frozen=True)
class Apart:
    """What a worker gets that does not share the folders of the command."""

    results: Path
    """The folder of all experiments, as the command names it."""
    files: Callable[[], Mapping[str, Path]]
    """The files that it needs, by their place in the folder of its copies.

    Waits until the command has prepared them: to be called in `Worker.lines`.
    """
    arguments: Sequence[str]
    """Those of the command; a null character stands for the folder of its copies."""
    environment: Mapping[str, str]
    """Further variables, likewise."""
    modules: Sequence[str] = ()
    """Modules that the command imports, which a worker may do before it has the files."""


@dataclass(frozen=True)
class Call:
    """The command that workers run again, in the same folder and with the same arguments."""

    arguments: Sequence[str]
    folder: Path
    """Folder of the experiment; the files of a launcher belong into a hidden folder of it."""
    count: int = 2
    """The processes that compute, this one included if it does."""
    code: str = ""
    """Hash of the code of this process; a worker of other code refuses to work."""
    gpus: int = 0
    """GPUs of this machine that the command may use."""
    module: str = "bench.cli"
    """Its function `main` runs the command."""
    apart: Apart | None = None
    """For workers that do not share the folders of the command."""
    nodes: int = 1
    processes: int = 1
    """If there are several on a node, or several nodes, torchrun makes them one worker."""
    since: int = field(default_factory=time.time_ns)
    """When the command began, in nanoseconds since 1970; later failures are its own."""

    def source(self) -> str:
        """Python that runs the command in a new interpreter, given its arguments.

        As multiprocessing's "spawn" does: with the same modules, wherever this process found them.
        """
        return main_of(self.module, sys.path)

    def environment(self, number: int) -> dict[str, str]:
        """The variables that make the process with this number a worker."""
        worker = f"{number}/{self.count}"
        return {WORKER: worker, CODE: self.code, SINCE: str(self.since)}


def main_of(module: str, path: Sequence[str]) -> str:
    """Python that runs the function `main` of a module, which it finds on this path."""
    return f"import sys; sys.path[:] = {list(path)!r}; from {module} import main; main()"


class Worker(ABC):
    """One process of a command, started or waiting to be started."""

    lasts = False
    """Whether it goes on when the command that watches it is stopped."""

    def __init__(self, number: int) -> None:
        self.number = number

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """What it writes to its standard output, line by line, until it has ended.

        Called once, in a thread of its own. The launcher may add notes for the user, as JSON:
        {"note": "2 of 8 workers run."}.
        """

    def send(self, line: str) -> None:  # noqa: B027 - only workers apart are sent any
        """Write a line to its standard input, after the files that it names in "files"."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to stop, with SIGTERM; nothing if it has ended."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def wait(self, seconds: float) -> int | None:
        """Its exit status, None if it has not ended after so many seconds."""

    @abstractmethod
    def last_words(self) -> str:
        """The last line of its standard error, or ''."""

    @abstractmethod
    def close(self) -> None:
        """Free what belongs to it, after it has ended."""


class Launcher(ABC):
    """A way to start workers, with the settings of its user."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `bench list launchers`."""
    computes_here: ClassVar[bool] = False
    """Whether the command itself also computes items, beside its workers."""
    shares_folders: ClassVar[bool] = True
    """Whether workers see the folders of the command; otherwise it carries the files of `Apart`,
    and both ways, before a line arrives, the files that it names in "files" (relative to the
    results, in this order; those that the worker has removed meanwhile are skipped)."""
    spans_nodes: ClassVar[bool] = False
    """Whether one worker can be several processes, on one or more nodes."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """UserError for settings that it does not know, or bad values.

        From the command line values are strings, from a suite file whatever TOML has.
        """
        if settings:
            raise UserError(
                f"Launcher {self.name!r} has no settings: drop {', '.join(settings)}.", code=2
            )

    @abstractmethod
    def start(self, call: Call, numbers: Sequence[int]) -> list[Worker]:
        """Start workers with these numbers; UserError if they cannot be started.

        Each runs `call.source()` with `call.arguments` and with `call.environment(number)` over
        this process's environment. Its standard input ends when it is to stop with the command.
        """

    def detach(self, call: Call, numbers: Sequence[int]) -> str:
        """Start workers that go on without this command; the sentence that names them.

        UserError if they cannot.
        """
        raise UserError(
            f"Workers of launcher {self.name!r} stop with their command: drop --detach.", code=2
        )


LAUNCHERS: dict[str, type[Launcher]] = {}
"""Launchers by name."""

L = TypeVar("L", bound=type[Launcher])


def register(cls: L) -> L:
    """Class decorator: make a launcher known by its name.

    ValueError if the name is taken; TypeError if the class is incomplete.
    """
    check_whole("launcher", cls)
    check_name("launcher", cls.name)
    taken = LAUNCHERS.setdefault(cls.name, cls)
    if taken is not cls:
        raise ValueError(
            f"a launcher named {cls.name!r} is already registered by {taken.__module__}"
        )
    return cls


def make_launcher(name: str, settings: Mapping[str, object]) -> Launcher:
    """A launcher by name; UserError for an unknown name or bad settings."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    return LAUNCHERS[name](settings)


def parse_launcher(text: str) -> tuple[str, dict[str, object]]:
    """Name and settings of a launcher: "slurm" or "slurm:partition=gpu,time=60"."""
    name, _, rest = text.partition(":")
    settings: dict[str, object] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not key or not equals or key.strip() in settings:
            raise UserError(
                f"Launcher settings are name=value, each once and separated by commas, got "
                f"{part!r}: slurm:partition=gpu,time=60.",
                code=2,
            )
        settings[key.strip()] = value.strip()
    return name, settings
