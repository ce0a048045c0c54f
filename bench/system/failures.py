"""What the machine refuses, in one sentence: a full disk, a vanished mount, too little memory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from bench.system.errors import UserError

KEPT = "what was finished is kept, and the same command goes on"
_MOUNT = f"The disk or its mount fails; once it is back, {KEPT}."
_RIGHTS = f"Get the right to write there, or name another folder; {KEPT}."
_ROOM = f"Make room there; {KEPT}."
_HANDLES = f"Allow more open files (ulimit -n); {KEPT}."
_IN_THE_WAY = "Something else is in the place of a file or folder: move it away, or name another."

ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: _MOUNT,
    errno.ESTALE: _MOUNT,
    errno.ENOTCONN: _MOUNT,
    errno.ENODEV: _MOUNT,
    errno.ENXIO: _MOUNT,
    errno.EHOSTDOWN: _MOUNT,
    errno.EFBIG: f"Allow larger files (ulimit -f, or another file system); {KEPT}.",
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
}
"""What to do about the refusals that meet every further file as well."""

_ONE_FILE = {
    errno.ENOENT: f"If it was there before, bring it back; {KEPT}.",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENAMETOOLONG: "Choose shorter names.",
}
_MEMORY = (
    "Memory does not suffice. Take smaller pieces, such as --batch 64 or "
    f"--set train.micro_batch=16, or free some; {KEPT}."
)
_RUST = re.compile(r"(?:I/O error: )?(?P<what>[^:]*) \(os error (?P<number>\d+)\)")
_TEMPORARY = re.compile(r"(?P<folder>.*/)?\.(?P<name>[^/]+)\.[a-z0-9_]{8}(?:\.writing(?:/[^/]*)?)?")


def system_error(error: BaseException) -> OSError | None:
    """The refusal of the machine behind an error, if it is one that every further file meets.

    Libraries may raise something of their own while they handle it, and those that are written in
    Rust say its number only in words.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError):
            if found.errno in ADVICE:
                return found
        elif (told := _RUST.search(str(found))) and int(told["number"]) in ADVICE:
            number = int(told["number"])
            return OSError(number, os.strerror(number))
        found = found.__cause__ or found.__context__
    return None


def explain_trouble(error: BaseException) -> str | None:
    """What failed, where, and what to do, in one or two sentences; None for other errors."""
    refusal = system_error(error)
    if refusal is None and _is_out_of_memory(error):
        return _MEMORY
    if refusal is None and isinstance(error, OSError):
        refusal = error
    if refusal is None:
        return None
    number = refusal.errno or 0
    if number == errno.ENOMEM:
        return _MEMORY
    where = f": {_place(refusal.filename)}" if refusal.filename else ""
    what = f"{refusal.strerror or refusal}{where}.".replace("..", ".")
    advice = ADVICE.get(number) or _ONE_FILE.get(number)
    return f"{what} {advice}" if advice else what


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn a refusal of the machine within the block into a UserError that begins with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if system_error(error) is None and not _is_out_of_memory(error):
            raise
        raise UserError(f"{what}: {explain_trouble(error)}") from error


def _place(name: object) -> str:
    """The file that was asked for, where the name is that of a temporary file beside it."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    found = _TEMPORARY.fullmatch(text)
    return f"{found['folder'] or ''}{found['name']}" if found else text


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, ImportError | RuntimeError):
        # Of a shared library that cannot be mapped, and of the allocators of torch.
        words = ("cannot allocate memory", "out of memory", "not enough memory", "can't allocate")
        return any(word in str(error).lower() for word in words)
    return False
