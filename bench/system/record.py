"""What a command has to do: a file in the experiment's folder, for `bench status`.

It names the results only. What has become of them is read from their files and leases, so that it
is right for every process that computes them, wherever it runs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.system.errors import UserError
from bench.system.files import read_whole, write_text
from bench.system.leases import LEASE, PATIENCE, read_holder
from bench.system.sharing import lease_path

FILE = "work.json"
MOST = 1 << 30
"""Bytes of such a file."""
_HEAD = 512
"""Bytes of a row that hold its status."""
_STATUS = re.compile(rb'"status": "(\w+)"')

_open: Path | None = None
_fresh = False


@dataclass
class Progress:
    """What has become of the results of one part of a command; each counts once.

    `running` has names by holder.
    """

    title: str
    done: int = 0
    failed: int = 0
    left: int = 0
    running: dict[str, list[str]] = field(default_factory=dict)

    @property
    def busy(self) -> int:
        """The number of running ones."""
        return sum(map(len, self.running.values()))


@contextmanager
def recording(folder: Path, *, fresh: bool) -> Iterator[None]:
    """Let `record` write to this experiment's folder; `fresh`: in place of an earlier command."""
    global _open, _fresh
    before = _open, _fresh
    _open, _fresh = folder / FILE, fresh
    try:
        yield
    finally:
        _open, _fresh = before


def record(title: str, items: Sequence[tuple[Path, str]]) -> None:
    """Note results to be made, by file and name; nothing outside `recording`."""
    global _fresh
    if _open is None or not items:
        return
    part = {"title": title, "items": [[_relative(path), what] for path, what in items]}
    known = [] if _fresh else _parts(_open)
    _fresh = False
    if part not in known:
        with suppress(OSError):  # without it only `bench status` says less
            write_text(_open, json.dumps({"parts": [*known, part]}))


def _relative(path: Path) -> str:
    assert _open is not None
    return str(path.absolute().relative_to(_open.parent.absolute()))


def _parts(path: Path) -> list[dict[str, object]]:
    try:
        found = json.loads(read_whole(path, MOST))["parts"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: remove it.") from None
    assert isinstance(found, list)
    return found


def read_progress(folder: Path) -> list[Progress]:
    """The parts of the last command in an experiment's folder by title, and how far they are."""
    found: dict[str, Progress] = {}
    for part in _parts(folder / FILE):
        title = str(part["title"])
        progress = found.setdefault(title, Progress(title))
        items = part["items"]
        assert isinstance(items, list)
        leases = _leases({(folder / path).parent for path, _ in items})
        for path, what in items:
            _count(progress, folder / path, what, leases)
    return list(found.values())


def _leases(folders: Iterable[Path]) -> set[Path]:
    """The leases in these folders that a process has touched of late."""
    paths = [path for folder in folders for path in folder.glob(f"*{LEASE}")]
    oldest, found = time.time() - 2 * PATIENCE, set()
    for path in paths:
        with suppress(OSError):
            if path.stat().st_mtime > oldest:
                found.add(path)
    return found


def _count(progress: Progress, path: Path, what: str, leases: set[Path]) -> None:
    status = b""
    with suppress(FileNotFoundError), path.open("rb") as file:
        found = _STATUS.search(file.read(_HEAD)) if path.suffix == ".json" else None
        status = found[1] if found else b"ok"
    if status not in (b"", b"failed"):
        progress.done += 1
        return
    lease = lease_path(path)
    if lease not in leases:
        lease = path.with_name(LEASE)  # of a run's folder
    if lease in leases and (holder := read_holder(lease)) is not None:
        progress.running.setdefault(holder, []).append(what)
    else:
        progress.failed += status == b"failed"
        progress.left += not status
