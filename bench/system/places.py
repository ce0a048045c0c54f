"""The folders that a command works in: nothing is written once one of them was replaced.

When a mount vanishes, its empty mount point takes its place: a command would find nothing there,
and could write there.
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
    """`hold` these folders during the block; OSError at its end too if one has gone.

    That error replaces results and errors that came from an empty mount point. Blocks can be
    nested; the folders of the outer one remain held.
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
    """Let `check` watch these folders from now on; does nothing outside `holding`.

    Watches the folder, or the nearest existing one above it, and all mount points below it (Linux).
    Keeps them open, so that an automounter does not unmount them.
    """
    if _held is None:
        return
    for place in places:
        for folder in (_nearest(place.absolute()), *_mounts_below(place)):
            if folder not in _held:
                with suppress(OSError):  # Windows cannot open folders, and some are unreadable
                    _held[folder] = os.open(folder, os.O_RDONLY)


def check() -> None:
    """OSError if the path of a held folder leads to another folder, or nowhere.

    After this check it is safe to rename a file that was created below such a folder before it:
    the file is in the folder itself, and is not found once that is gone.
    """
    for folder, descriptor in (_held or {}).items():
        try:
            same = os.path.samestat(folder.stat(), os.fstat(descriptor))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            why = "It is gone, as after its disk was unmounted, and nothing more is written"
            raise OSError(errno.ENODEV, why, str(folder))


def _nearest(place: Path) -> Path:
    for folder in (place, *place.parents):
        with suppress(OSError, ValueError):  # an invalid name, or one that cannot be reached
            if folder.is_dir():
                return folder
    return Path(place.anchor)


def _mounts_below(place: Path) -> list[Path]:
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
        within = place.resolve()
    except (OSError, RuntimeError, ValueError):  # an invalid name, or a link to itself
        return []
    # The fifth field, with \040 for a space.
    fields = (line.split(" ")[4] for line in lines)
    points = [Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), field)) for field in fields]
    return [point for point in points if point.is_relative_to(within)]
