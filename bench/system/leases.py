"""Leases: hidden files that name the process at work on something, so that no two do it at once.

`filelock.SoftFileLease` creates such a file exclusively, touches it every `BEAT` seconds, and
takes over the lease of a dead process of this machine at once. Other leases expire by their age,
which is measured here with the clock of the file system. Where the file system cannot exchange two
names (NFS, SMB), filelock takes nothing over, and leases of dead processes are removed here too.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from filelock import OwnerRecord, SoftFileLease, Timeout

from bench.system import places
from bench.system.files import make_folder

LEASE = ".lease"
"""Ends the name of a lease."""
PATIENCE = 120.0
"""Seconds without a touch after which a lease has expired."""
BEAT = 10.0
"""Seconds between two touches."""
GRACE = 2.0
"""Seconds after which a lease without a readable owner is stale: its process died in between."""


_here: dict[Path, Lease] = {}


class Lease(SoftFileLease):
    """A lease that this process holds until `release`, which any of its threads may call."""

    def release(self, force: bool = False) -> None:
        """Give it back."""
        _here.pop(self.path, None)
        super().release(force)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.lock_file)

    def is_mine(self) -> bool:
        """Whether nobody has taken it over, as happens to a process that slept for long."""
        owner = self.owner
        return owner is not None and owner.token == self.token


def try_lease(path: Path) -> Lease | None:
    """The lease `path`, or None while another process, or another part of this one, holds it.

    Makes missing folders. OSError, with the path, if the file system refuses.
    """
    make_folder(path.parent)
    lease = _lease(path)
    if _acquire(lease) or (_remove_expired(path) and _acquire(lease)):
        _here[lease.path] = lease
        return lease
    return None


def held_here(path: Path) -> Lease | None:
    """The lease `path`, if this process holds it."""
    return _here.get(path)


def read_holder(path: Path) -> str | None:
    """Who holds a lease: "process 123 on host"; None if nobody does or the file is unreadable."""
    owner = _lease(path).owner
    # A question mark cannot be in a host's name. What follows it tells containers apart.
    return None if owner is None else f"process {owner.pid} on {owner.hostname.partition('?')[0]}"


def tidy_leases(folder: Path) -> None:
    """Remove the leases of dead processes in a folder, and what they left of taking some over."""
    with suppress(OSError):
        hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
        paths = [path for path in hidden if f"{LEASE}." in f"{path.name}." and path.is_file()]
        if any(_lease(path).owner is None for path in paths):
            time.sleep(1.1 * GRACE)  # its process may be about to write it
        for path in paths:
            lease = try_lease(path)
            if lease is not None:
                lease.release()


def _lease(path: Path) -> Lease:
    return Lease(
        path, lease_duration=PATIENCE, heartbeat_interval=BEAT, blocking=False, thread_local=False
    )


def _acquire(lease: Lease) -> bool:
    places.check()
    try:
        lease.acquire()
    except Timeout:
        return False
    except OSError as error:
        error.filename = lease.lock_file  # a failed write does not name its file
        raise
    try:
        places.check()
    except OSError:
        lease.release()
        raise
    return True


def _remove_expired(path: Path) -> bool:
    """Remove a lease that has expired; whether it is gone.

    It is moved aside first, and put back if it is not the file that was judged: another process
    may have replaced or touched it in between.
    """
    judged, owner = _state(path), _lease(path).owner
    if judged is None:
        return True
    if _state(path) != judged:  # the owner read may be of another file
        return False
    if not _is_expired(path, owner, judged[1]) or _state(path) != judged:
        return False
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    same = _state(aside) == judged
    if not same:
        with suppress(OSError):  # whoever created another one meanwhile keeps it
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return same


def _state(path: Path) -> tuple[int, int] | None:
    """Inode and time of the last touch in nanoseconds; None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _is_expired(path: Path, owner: OwnerRecord | None, touched: int) -> bool:
    # A new file beside it tells what time it is there, and how this machine is named in leases.
    with _lease(path.with_name(f"{path.name}.{secrets.token_hex(8)}")) as probe:
        here, now = probe.owner, probe.path.stat().st_mtime_ns
    if owner is None:
        return now - touched > GRACE * 1e9
    is_here = here is not None and owner.hostname == here.hostname
    if is_here and not _exists(owner.pid):
        return True
    if now - touched <= PATIENCE * 1e9:
        return False
    if is_here:  # if the whole machine slept, its process touches the lease again first
        time.sleep(1.5 * BEAT)
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True
