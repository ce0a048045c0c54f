"""Claims: files that say who is at work on something, so that two processes never do it twice.

They need neither flock nor equal clocks: a claim is made by creating a file that must not exist
yet, which network file systems also do for one process only, and its holder touches it every few
seconds. A claim expires once its process is gone, which its own machine can see, or once nobody
has touched it for `PATIENCE`, or for `SILENCE` where it seems to be of its own machine before that
was started anew; ages are taken by the file system's own clock.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from bench.system import places
from bench.system.exclusive import rename_new
from bench.system.files import make_folder, read_whole
from bench.system.holder import Holder, Mark, mark_in, this_process

PATIENCE = 120.0
"""Seconds without a sign of life after which a claim of another machine is void."""
BEAT = 10.0
"""Seconds between two signs of life."""
SILENCE = 3 * BEAT
"""The same as `PATIENCE`, where all but the signs of life says that the holder is gone."""
_ON_THE_WAY = (".draft", ".now", ".turn", ".void")
"""Files that exist only while a claim is made."""


class Claim:
    """A claim that this process holds until `release`."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self.holder = path, holder
        _KEEPER.add(self)

    def is_mine(self) -> bool:
        """Whether nobody has taken it over, as happens to a process that slept for long."""
        found = read_holder(self.path)
        return found is not None and found.token == self.holder.token

    def release(self) -> None:
        """Give it up. A claim that somebody took over is left alone."""
        _KEEPER.remove(self)
        if self.is_mine():
            with suppress(OSError):
                self.path.unlink()


def try_claim(path: Path) -> Claim | None:
    """The claim `path`, or None while another process, or another part of this one, holds it.

    Folders on the way are made. OSError if the file system does not let it be written.
    """
    holder = this_process()
    make_folder(path.parent)
    if _create(path, holder):
        return Claim(path, holder)
    held = read_holder(path)
    if not _is_void(path, _mark_of(path, held)):
        return None
    # Of all who find it void one may replace it; whoever dies meanwhile leaves a void file too.
    turn = path.with_name(f"{path.name}.turn")
    if not _create(turn, holder):
        _remove_void(turn, read_holder(turn))
        return None
    try:
        if not _remove_void(path, held):
            return None
        return Claim(path, holder) if _create(path, holder) else None
    finally:
        turn.unlink(missing_ok=True)


@contextmanager
def claimed(path: Path) -> Iterator[Claim | None]:
    """`try_claim`, released at the end of the block."""
    claim = try_claim(path)
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


def tidy_claims(folder: Path) -> None:
    """Remove the void claims in a folder, and what killed processes left of making some."""
    with suppress(OSError):
        void = [p for p in folder.glob(".*") if p.name.endswith((*_ON_THE_WAY, ".claim"))]
        void = [path for path in void if _is_void(path, _mark_of(path, read_holder(path)))]
        for path in void:
            if path.suffix in _ON_THE_WAY:
                _remove_void(path, read_holder(path))
        for path in void:  # their turns have gone before them
            if path.suffix not in _ON_THE_WAY:
                with claimed(path):  # who takes it over meanwhile keeps it
                    pass


def read_holder(path: Path) -> Holder | None:
    """Who holds a claim; None if there is none, or one whose writing was cut short."""
    try:
        return Holder.model_validate_json(read_whole(path))
    except (OSError, ValidationError):
        return None


def _create(path: Path, holder: Holder) -> bool:
    """Make the file with its content, whole at once, unless it exists."""
    text = holder.model_dump_json().encode()
    # Whoever finds it half written sees by its name whose it is.
    draft = path.with_name(holder.mark.new_name("draft"))
    try:
        with _of(path), draft.open("xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        places.check()
        return _named(draft, path) or _create_exclusively(path, text)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _named(draft: Path, path: Path) -> bool:
    """Give a file a name that nobody has, at once; FileExistsError if somebody has it.

    False where the file system has neither hard links nor renames that replace nothing.
    """
    for name in (os.link, rename_new):
        try:
            with _of(path):
                name(draft, path)
        except (FileExistsError, FileNotFoundError):  # the folder may be gone, for another
            raise
        except OSError:
            continue
        return True
    return False


def _create_exclusively(path: Path, text: bytes) -> bool:
    """The same, but that a reader may find it half written."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with _of(path), os.fdopen(handle, "wb") as file:
            file.write(text)
        places.check()
    except OSError:  # a claim of nobody would keep everybody waiting
        path.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Name the claim in an error, as one of a write or a flush does not, nor one of its draft."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _remove_void(path: Path, held: Holder | None) -> bool:
    """Remove what `held` left if it still is what lies there, and void; whether it was removed.

    Others may replace or touch it between the look and the removal: it is moved aside first, where
    only this process looks again, and put back if it is alive.
    """
    mark = _mark_of(path, held)
    if not _is_void(path, mark):
        return False
    aside = path.with_name(this_process().mark.new_name("void"))
    try:
        path.rename(aside)
    except FileNotFoundError:  # somebody was quicker
        return False
    if read_holder(aside) == held and _is_void(aside, mark):
        aside.unlink(missing_ok=True)
        return True
    with suppress(FileExistsError):  # whose holder sees that it has lost it
        if not _named(aside, path):
            aside.rename(path)
    aside.unlink(missing_ok=True)
    return False


def _mark_of(path: Path, held: Holder | None) -> Mark | None:
    """Whose a file is, by its content or else by its name; None where neither tells."""
    return held.mark if held is not None else mark_in(path.name)


def _is_void(path: Path, mark: Mark | None) -> bool:
    gone = None if mark is None else mark.is_gone()
    if gone is not None:
        return gone
    anew = mark is not None and mark.is_of_earlier_start()
    return _age(path) > (SILENCE if anew else PATIENCE)


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system; 0 if it is gone."""
    probe = path.with_name(this_process().mark.new_name("now"))
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


class _Keeper:
    """One thread a process that touches all claims it holds."""

    def __init__(self) -> None:
        self._claims: set[Claim] = set()
        self._lock = threading.Lock()
        self._pid = 0

    def add(self, claim: Claim) -> None:
        with self._lock:
            self._claims.add(claim)
            if self._pid != os.getpid():  # threads do not survive a fork
                self._pid = os.getpid()
                threading.Thread(target=self._beat, daemon=True, name="claims").start()

    def remove(self, claim: Claim) -> None:
        with self._lock:
            self._claims.discard(claim)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                claims = list(self._claims)
            for claim in claims:
                with contextlib.suppress(OSError):
                    if claim.is_mine():
                        os.utime(claim.path)


_KEEPER = _Keeper()
