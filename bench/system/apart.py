"""Workers apart from the folders of their command: they ask for each item, and get its files.

The command holds the leases of the items that it grants. A worker sends {"ask": lease}, and then
waits for an answer. With the end of an item it names the files that it has written.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from bench.system.files import write_bytes
from bench.system.launch.base import RESULTS
from bench.system.leases import Lease, try_lease
from bench.system.sharing import lease_path

LOSSES = 3
"""An item fails after so many workers have died with it."""


@dataclass(frozen=True)
class Offer:
    """An item that workers may take: its result, and whether that is there."""

    path: Path
    is_done: Callable[[], bool]


# The side of the command.


class Loans:
    """The items on offer, and the leases that the command holds for its workers."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._offers: Mapping[Path, Offer] = {}
        self._over: dict[Path, Offer] = {}
        self._held: dict[Path, tuple[int, Lease]] = {}
        self._losses: Counter[Path] = Counter()
        self._lock = Lock()

    def offer(self, offers: Mapping[Path, Offer]) -> None:
        """Offer these items; the earlier ones are done."""
        with self._lock:
            self._over |= self._offers
            self._offers = offers

    def path(self, name: str) -> Path:
        """The path of a file by the name that workers use."""
        return self._results / name

    def ask(self, number: int, name: str) -> str:
        """The answer to a worker that wants the lease of this name."""
        lease = self.path(name)
        with self._lock:
            offer = self._offers.get(lease) or self._over.get(lease)
            if offer is None or lease in self._held:
                return json.dumps({"take": "later"})
            answer = "done"
            if lease not in self._over and not offer.is_done():
                if (taken := try_lease(lease)) is None:
                    return json.dumps({"take": "later"})
                self._held[lease] = number, taken
                answer = "yes"
        # Further cells may depend on rows, and a row keeps the values that it has.
        row = offer.path
        content = base64.b64encode(row.read_bytes()).decode() if row.is_file() else None
        name = row.relative_to(self._results).as_posix()
        return json.dumps({"take": answer, "row": name, "content": content})

    def end(self, path: Path) -> bool:
        """Release the lease of an item that has ended; whether its result is whole here."""
        lease = lease_path(path)
        with self._lock:
            held = self._held.pop(lease, None)
        if held is not None:
            held[1].release()
        return lease not in self._offers or self._offers[lease].is_done()

    def lose(self, number: int) -> list[Path]:
        """Release what a dead worker had; returns the items that are lost for good."""
        with self._lock:
            gone = [lease for lease, (holder, _) in self._held.items() if holder == number]
            for lease in gone:
                self._held.pop(lease)[1].release()
        self._losses.update(gone)
        return [self._offers[lease].path for lease in gone if self._losses[lease] >= LOSSES]


# The side of a worker.


class Borrower:
    """Asks the command for items."""

    def __init__(self, copies: Path, send: Callable[..., None]) -> None:
        self._results, self._send = copies / RESULTS, send
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._done: set[Path] = set()
        self._before: dict[str, tuple[int, ...]] = {}

    def listen(self) -> None:
        """Receive answers until the standard input ends."""
        with suppress(OSError), os.fdopen(os.dup(0), encoding="utf-8") as answers:
            for line in answers:
                self._answers.put(json.loads(line))

    def name(self, path: Path) -> str:
        """The name of a file by which the command knows it."""
        return str(path.relative_to(self._results))

    def take(self, lease: Path) -> Lease | None:
        """The lease, if the command grants it."""
        self._send(ask=self.name(lease))
        answer = self._answers.get()
        if answer.get("content") is not None:
            write_bytes(self._results / answer["row"], base64.b64decode(answer["content"]))
        if answer["take"] == "done":
            self._done.add(lease)
        return try_lease(lease) if answer["take"] == "yes" else None

    def is_done(self, path: Path) -> bool:
        """Whether the command has said that this result is there."""
        return lease_path(path) in self._done

    def begin(self) -> None:
        """Note the files before an item."""
        self._before = self._marks()

    def written(self) -> list[str]:
        """The files that have changed since."""
        return [name for name, mark in self._marks().items() if self._before.get(name) != mark]

    def _marks(self) -> dict[str, tuple[int, ...]]:
        marks: dict[str, tuple[int, ...]] = {}
        for folder, folders, files in os.walk(self._results):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                if not file.startswith("."):
                    status = (path := Path(folder, file)).stat()
                    marks[self.name(path)] = status.st_mtime_ns, status.st_size, status.st_ino
        return marks
