"""Failures of the machine in one sentence: full disk, lost mount, out of memory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from bench.system.errors import UserError

KEPT = "Finished work is kept. Run the same command to continue."
_MOUNT = f"The disk or its mount failed: bring it back. {KEPT}"
_RIGHTS = f"Get write permission there, or use another folder. {KEPT}"
_ROOM = f"Free some disk space there. {KEPT}"
_HANDLES = f"Allow more open files (ulimit -n). {KEPT}"
_IN_THE_WAY = "Another file or folder has this name: move it, or use another name."

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
    errno.EFBIG: f"Allow larger files (ulimit -f, or another file system). {KEPT}",
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
}
"""Advice for failures that affect every further file."""

_ONE_FILE = {
    errno.ENOENT: f"If it was there before, bring it back. {KEPT}",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENAMETOOLONG: "Choose shorter names.",
}
_MEMORY = (
    "Out of memory. Use a smaller batch, such as --batch 64 or --set train.micro_batch=16, or free "
    f"some memory. {KEPT}"
)
_WORDS = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
    "status_alloc_failed",
)  # fmt: skip
_RUST = re.compile(r"(?:I/O error: )?(?P<what>[^:]*) \(os error (?P<number>\d+)\)")
_TEMPORARY = re.compile(r"(?P<folder>.*/)?\.(?P<name>[^/]+)\.[a-z0-9_]{8}(?:\.writing(?:/[^/]*)?)?")


def system_error(error: BaseException) -> OSError | None:
    """The failure of the machine that caused an error, if it affects every further file.

    Libraries may raise another error while they handle it, and libraries in Rust give its number
    only in the message.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError):
            if found.errno in ADVICE:
                return found
        elif (match := _RUST.search(str(found))) and int(match["number"]) in ADVICE:
            number = int(match["number"])
            return OSError(number, os.strerror(number))
        found = found.__cause__ or found.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that this machine or its accelerator is out of memory.

    Does not import torch, whose libraries may be what could not be loaded.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Allocators of CPU and MPS, CUDA's libraries and the library loader have only a message.
    text = str(error).lower()
    return isinstance(error, ImportError | RuntimeError) and any(word in text for word in _WORDS)


def explain_failure(error: BaseException) -> str | None:
    """What failed, where, and what to do, in one or two sentences; None for other errors."""
    failure = system_error(error)
    if failure is None and is_out_of_memory(error):
        return _MEMORY
    if failure is None:
        if not isinstance(error, OSError):
            return None
        failure = error
    where = f": {_place(failure.filename)}" if failure.filename else ""
    what = f"{failure.strerror or failure}{where}.".replace("..", ".")
    return f"{what} {(ADVICE | _ONE_FILE).get(failure.errno or 0, '')}".rstrip()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn a failure of the machine in the block into a UserError that begins with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if system_error(error) is None and not is_out_of_memory(error):
            raise
        raise UserError(f"{what}: {explain_failure(error)}") from error


def _place(name: object) -> str:
    """The final name of a temporary file."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    found = _TEMPORARY.fullmatch(text)
    return f"{found['folder'] or ''}{found['name']}" if found else text
