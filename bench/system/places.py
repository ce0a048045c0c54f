"""The folders that a command works in: once one of them has become another, nothing is written.

Where a mount vanishes, its empty mount point takes its place: all that a command reads there is
nothing, and all that it writes there succeeds.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

_held: dict[Path, int] | None = None
"""Open folders by path; None outside `holding`."""


@contextmanager
def holding(*places: Path) -> Iterator[None]:
    """`hold` these and others until the end of the block; OSError there too if one has gone.

    Within another such block its places are held as well, and those of this one no longer than it.
    So what was read from an empty mount point is not taken for a result, nor an error that it led
    to for the reason.
    """
    global _held
    before = _held
    _held = dict(before or {})
    try:
        hold(*places)
        try:
            yield
        finally:
            check()
    finally:
        for folder, descriptor in _held.items():
            if folder not in (before or {}):
                os.close(descriptor)
        _held = before


def hold(*places: Path) -> None:
    """Let `check` notice from now on that a file or folder is cut off; nothing outside `holding`.

    Held are the folder itself, or the nearest above it that exists, and all mount points below it
    where the system lists them (Linux). They stay open: a disk that comes and goes by itself stays.
    """
    if _held is None:
        return
    for place in places:
        for folder in (_nearest(place.absolute()), *_mounts_below(place)):
            if folder not in _held:
                with suppress(OSError):  # Windows opens no folders, and some may not be read
                    _held[folder] = os.open(folder, os.O_RDONLY)


def check() -> None:
    """OSError if what is at the path of a held folder is not that folder any more.

    To rename what was made before a check and is below such a folder is safe afterwards: it lies
    in the folder itself, and is not found once that is cut off.
    """
    for folder, descriptor in (_held or {}).items():
        try:
            same = os.path.samestat(folder.stat(), os.fstat(descriptor))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            why = "It is gone, as when its disk was unmounted, and nothing more is written"
            raise OSError(errno.ENODEV, why, str(folder))


def _nearest(place: Path) -> Path:
    for folder in (place, *place.parents):
        with suppress(OSError, ValueError):  # a name that cannot be, or one that is out of reach
            if folder.is_dir():
                return folder
    return Path(place.anchor)


def _mounts_below(place: Path) -> list[Path]:
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
        within = place.resolve()
    except (OSError, RuntimeError, ValueError):  # the place may be none, or a link to itself
        return []
    # The fifth field, in which a space is \040.
    points = [Path(re.sub(r"\\(\d{3})", _character, line.split(" ")[4])) for line in lines]
    return [point for point in points if point.is_relative_to(within)]


def _character(code: re.Match[str]) -> str:
    return chr(int(code[1], 8))
