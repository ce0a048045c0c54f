"""The side of a Ray cluster's machine: an actor that runs one worker with copies of its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple

from bench.system.errors import visible
from bench.system.files import write_bytes
from bench.system.launch.base import RESULTS

POLL = 2.0
"""Seconds that an actor waits for news before it answers without any."""
_WAITING = """
import importlib, json, os, sys
sys.path[:], names = json.loads(sys.argv[1])
module = [importlib.import_module(name) for name in names][-1]
if line := sys.stdin.readline():
    sys.argv[1:], environment = json.loads(line)
    os.environ.update(environment)
    module.main()
"""
"""The process: it imports modules, and waits for the arguments of the last one's `main`."""
_STORE = "guidance-bench-ray-"
"""Begins the name of a folder: files by their hash, and a folder of copies per process."""


class News(NamedTuple):
    """Lines of a process with the files that they name, and how it ended if it did."""

    lines: Sequence[tuple[str, Mapping[str, bytes]]]
    status: int | None
    last_words: str


def _tidy() -> None:
    """Remove what was stored for commands whose processes here are all gone."""
    for store in Path(tempfile.gettempdir()).glob(f"{_STORE}*"):
        with suppress(OSError, ValueError):
            processes = [int(path.name) for path in store.iterdir() if path.is_dir()]
            if not any(Path("/proc", str(number)).exists() for number in processes):
                shutil.rmtree(store)


class Machine:
    """The actor: one worker process, and the copies of its files."""

    def __init__(
        self, path: Sequence[str], module: str, imports: Sequence[str], folder: str
    ) -> None:
        import ray

        context = ray.get_runtime_context()
        _tidy()
        name = f"{_STORE}{context.get_job_id()}-{context.get_node_id()}"
        self._store = Path(tempfile.gettempdir(), name)
        self._store.mkdir(0o700, exist_ok=True)
        self._copies = self._store / str(os.getpid())
        self._copies.mkdir()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the actor
        self._lines: Queue[str | None] = Queue()
        modules = [*sys.path, *(entry for entry in path if entry not in sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WAITING, json.dumps([modules, [*imports, module]])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=folder if Path(folder).is_dir() else self._copies,
            start_new_session=True,
        )
        Thread(target=self._listen, daemon=True).start()

    def missing(self, hashes: Sequence[str]) -> list[str]:
        """The contents that are not on this machine yet."""
        return [content for content in hashes if not (self._store / content).exists()]

    def begin(
        self, arguments: Sequence[str], environment: Mapping[str, str], places: Mapping[str, str],
        objects: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Store the objects by their hash, put every file into its place, let the command run."""
        import ray

        for content, reference in objects.items():
            write_bytes(self._store / content, ray.get(reference))
        for place, content in places.items():
            path = self._copies / place
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._store / content, path)  # files are replaced, never written in place
        own = str(self._copies)
        environment = {name: value.replace("\0", own) for name, value in environment.items()}
        arguments = [argument.replace("\0", own) for argument in arguments]
        self.write(json.dumps([arguments, environment]), {})

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)

    def read(self) -> News:
        """The next lines, as soon as there is one, and the end."""
        lines: list[tuple[str, dict[str, bytes]]] = []
        with suppress(Empty):
            line = self._lines.get(timeout=POLL)
            while line is not None:
                lines.append((line, self._files(line)))
                line = self._lines.get_nowait()
            return News(lines, self._process.wait(), self._last_words())
        return News(lines, None, "")

    def _files(self, line: str) -> dict[str, bytes]:
        if '"files"' not in line:
            return {}
        found = {}
        for name in json.loads(line)["files"]:
            with suppress(FileNotFoundError):  # a checkpoint, removed or replaced since
                found[name] = (self._copies / RESULTS / name).read_bytes()
        return found

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return visible(lines[-1]) if lines else ""

    def write(self, line: str, files: Mapping[str, Any]) -> None:
        """Write a line to the standard input of the process, after the objects of its files."""
        import ray

        for name, reference in files.items():
            write_bytes(self._copies / RESULTS / name, ray.get(reference))
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Remove the copies, and what is stored here after the last one has gone."""
        self._process.kill()
        shutil.rmtree(self._copies, ignore_errors=True)
        if not any(path.is_dir() for path in self._store.iterdir()):
            shutil.rmtree(self._store, ignore_errors=True)
