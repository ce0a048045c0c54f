"""To rename without replacing, which file systems can that have no hard links (exFAT, SMB)."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_HERE = -100  # AT_FDCWD of Linux: relative names start in the working directory
_NO_REPLACE = 1  # RENAME_NOREPLACE, likewise


def rename_new(old: Path, new: Path) -> None:
    """Give a file a name that nobody has yet, at once (renameat2(2)).

    FileExistsError if somebody has it; OSError with ENOSYS where the system has no such call, and
    EINVAL where the file system cannot do it.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # other systems than Linux, and older libraries
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(new)) from None
    if rename(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NO_REPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(new))
