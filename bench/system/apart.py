"""Workers apart from the folders of their command: they ask for each item, and get its files.

The command holds the leases of the items that it grants. A worker sends {"ask": lease}, and then
waits for an answer. The answer names the files that the worker needs, and the worker names those
that it has written: at the end of an item, at each checkpoint, and before it stops.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Condition
from typing import Any

from bench.system.launch.base import RESULTS
from bench.system.leases import LEASE, Lease, try_lease
from bench.system.sharing import lease_path

LOSSES = 3
"""An item fails after so many workers have died with it."""
WAIT = 5.0
"""Seconds that a worker ahead of its command waits for an answer."""
GROWING = ".jsonl"
"""Ends the name of a file beside a result that grows line by line.

Files in folders there may grow too; all others are replaced as a whole.
"""


@dataclass(frozen=True)
class Offer:
    """An item that workers may take."""

    path: Path
    """Its result."""
    is_done: Callable[[], bool]
    is_stored: Callable[[], bool]
    """Whether the whole result is here once a worker has ended the item."""
    fail: Callable[[str], None]
    """Stores why there is no result."""
    after: Sequence[Path] = ()
    """Results of other items that it needs."""


# The side of the command.


class Loans:
    """The items on offer, and the leases that the command holds for its workers."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._offers: Mapping[Path, Offer] = {}
        self._over: dict[Path, Offer] = {}
        self._leases: dict[Path, Path] = {}
        self._held: dict[Path, tuple[int, Lease]] = {}
        self._losses: Counter[Path] = Counter()
        self._lock = Condition()
        self._closed = False

    def offer(self, offers: Mapping[Path, Offer]) -> None:
        """Offer these items, by their leases; the earlier ones are done."""
        with self._lock:
            self._over |= self._offers
            self._offers = offers
            self._leases |= {offer.path: lease for lease, offer in offers.items()}
            self._lock.notify_all()

    def close(self) -> None:
        """Offer nothing more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def path(self, name: str) -> Path:
        """The path of a file by the name that workers use."""
        return self._results / name

    def ask(self, number: int, name: str) -> str:
        """The answer to a worker that wants the lease of this name; waits for it to be offered."""
        lease = self.path(name)
        with self._lock:
            self._lock.wait_for(
                lambda: lease in self._offers or lease in self._over or self._closed, WAIT
            )
            offer = self._offers.get(lease) or self._over.get(lease)
            if offer is None or lease in self._held:
                return json.dumps({"take": "later"})
            answer = "done"
            if lease not in self._over and not offer.is_done():
                lost = self._losses[lease] >= LOSSES  # and about to be noted
                if lost or (taken := try_lease(lease)) is None:
                    return json.dumps({"take": "later"})
                self._held[lease] = number, taken
                answer = "yes"
        files = list(self._files(offer.path, answer == "yes"))
        for path in offer.after if answer == "yes" else ():
            files += self._files(path, True)
        names = [path.relative_to(self._results).as_posix() for path in (offer.path, *files)]
        return json.dumps({"take": answer, "path": names[0], "files": names[1:]})

    def _files(self, path: Path, whole: bool) -> Iterator[Path]:
        """The files of a result: its row, or if `whole` all in the folder that is leased for it.

        A worker that computes something else may need the row, but no run that it did not train.
        """
        if self._leases.get(path, lease_path(path)).name == LEASE:
            for folder, folders, files in os.walk(path.parent) if whole else ():
                folders[:] = [name for name in folders if not name.startswith(".")]
                yield from (Path(folder, name) for name in files if not name.startswith("."))
        elif path.is_file():
            yield path

    def end(self, path: Path) -> Offer | None:
        """Release the lease of an item that has ended; the item, if its result is not whole."""
        lease = self._leases[path]
        with self._lock:
            held = self._held.pop(lease, None)
            offer = self._offers.get(lease)
        if held is not None:
            held[1].release()
        return None if offer is None or offer.is_stored() else offer

    def lose(self, number: int) -> list[Offer]:
        """Release what a dead worker had; returns the items that are lost for good."""
        with self._lock:
            gone = [lease for lease, (holder, _) in self._held.items() if holder == number]
            self._losses.update(gone)
            for lease in gone:
                self._held.pop(lease)[1].release()
            return [self._offers[lease] for lease in gone if self._losses[lease] >= LOSSES]


# The side of a worker.


class Borrower:
    """Asks the command for items, and gives back what was made of them."""

    def __init__(self, copies: Path, send: Callable[..., None]) -> None:
        self._results, self._send = copies / RESULTS, send
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._done: set[Path] = set()
        self._item: Path | None = None
        self._known: dict[str, tuple[int, ...]] = {}

    def listen(self) -> None:
        """Receive answers until the standard input ends."""
        with suppress(OSError), os.fdopen(os.dup(0), encoding="utf-8") as answers:
            for line in answers:
                self._answers.put(json.loads(line))

    def name(self, path: Path) -> str:
        """The name of a file by which the command knows it."""
        return path.relative_to(self._results).as_posix()

    def take(self, lease: Path) -> Lease | None:
        """The lease, if the command grants it."""
        self._send(ask=self.name(lease))
        answer = self._answers.get()
        if answer["take"] == "done":
            self._done.add(self._results / answer["path"])
        return try_lease(lease) if answer["take"] == "yes" else None

    def is_done(self, path: Path) -> bool:
        """Whether the command has said that this result is there."""
        return path in self._done

    def begin(self, path: Path) -> None:
        """Note the files before an item."""
        self._item, self._known = path, self._marks(self._results)

    def checkpoint(self) -> None:
        """Give back what is new beside the item's result, if more than growing files is."""
        if self._item is not None:
            self._give_back(self._item.parent, growth=False)

    def end(self, **event: Any) -> None:
        """Give back all that is new since the item began, with this event."""
        if self._item is not None:
            self._give_back(self._results, **event)
            self._item = None

    def _give_back(self, folder: Path, *, growth: bool = True, **event: Any) -> None:
        marks = self._marks(folder)
        below = "" if folder == self._results else f"{self.name(folder)}/"
        known = {name: mark for name, mark in self._known.items() if name.startswith(below)}
        files = [name for name, mark in marks.items() if known.get(name) != mark]
        removed = [name for name in known if name not in marks]
        growing = {name for name in files if name.endswith(GROWING) or "/" in name[len(below) :]}
        if not event and (not (files or removed) if growth else growing >= {*files, *removed}):
            return
        self._known |= marks
        for name in removed:
            del self._known[name]
        # What grows is read last: it then has the lines of all that was written before.
        files.sort(key=lambda name: name in growing)
        self._send(**event, files=files, removed=removed)

    def _marks(self, root: Path) -> dict[str, tuple[int, ...]]:
        marks: dict[str, tuple[int, ...]] = {}
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                with suppress(FileNotFoundError):  # it was replaced just now
                    if not file.startswith("."):
                        status = (path := Path(folder, file)).stat()
                        marks[self.name(path)] = status.st_mtime_ns, status.st_size, status.st_ino
        return marks
