"""Which process made a file, and whether it is still there: written in files and in their names."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

_NAME = re.compile(
    r"\.(?P<pid>\d{1,12})-(?P<started>\d*)-(?P<boot>\w*)-(?P<space>\w*)-(?P<machine>\w*)-\w+\.\w+",
    re.ASCII,
)


class Mark(NamedTuple):
    """A process among all of all machines; '' is what its system does not tell."""

    pid: int
    started: str
    boot: str
    space: str
    machine: str

    def new_name(self, suffix: str) -> str:
        """A hidden name that no other file has, from which `mark_in` tells whose it is."""
        parts = (self.pid, self.started, self.boot, self.space, self.machine, secrets.token_hex(8))
        return f".{'-'.join(map(str, parts))}.{suffix}"

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None if that cannot be told from here."""
        here = this_process().mark
        if not self.boot or (self.boot, self.space) != (here.boot, here.space):
            return None
        try:
            os.kill(self.pid, 0)
            own = True
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            own = False  # it exists and is somebody else's, about whom little may be told
        started = _started(self.pid)
        if not started and not own:
            return None
        # Numbers of processes are used again: a later one is not the holder.
        return started != self.started

    def is_of_earlier_start(self) -> bool:
        """Whether it seems to be of this machine before that was started anew.

        So does a living process of another machine that has the name and the identity of this
        one, as copies of a virtual machine and containers of one image may have.
        """
        here = this_process().mark
        return bool(self.machine and self.boot) and (
            self.boot != here.boot and self.machine == here.machine
        )


class Holder(BaseModel):
    """Who holds a claim; `machine`, `boot`, `space` tell machines, starts and containers apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    pid: int
    started: str
    machine: str
    boot: str
    space: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def mark(self) -> Mark:
        """What tells the process from others, short enough for a file's name."""
        machine = self.machine and f"{self.host} {self.machine}"
        return Mark(self.pid, self.started, *map(_short, (self.boot, self.space, machine)))


def this_process() -> Holder:
    """The process that asks, as the holder of something new."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        machine=_machine(),
        boot=_boot(),
        space=_space(),
        token=secrets.token_hex(8),
    )


def mark_in(name: str) -> Mark | None:
    """Whose file it is, by a name that `Mark.new_name` made; None for another name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    pid, *rest = found.groups()
    return Mark(int(pid), *rest)


def _short(text: str) -> str:
    return text and hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _started(pid: int) -> str:
    """When a process started, '' where the system does not say."""
    try:
        # The name of a process may hold spaces and brackets; fields are counted behind it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        # A zombie does nothing any more.
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


def _boot() -> str:
    """What tells one start of the machine from the next, '' where that is not known."""
    return _text("/proc/sys/kernel/random/boot_id")


def _machine() -> str:
    return _text("/etc/machine-id")


def _space() -> str:
    """What processes share that can see each other's numbers: a container is a space of its own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
