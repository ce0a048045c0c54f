"""Costly results on disk, named by what they depend on: reference sets, sums, trained networks."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

import metrics
from bench.data.untrusted import DAMAGE
from bench.experiment.identity import digest
from bench.system.files import atomic_file, check_regular, tell_damaged
from metrics.memo import Arrays, content_digest

LIBRARIES = ("numpy", "scipy", "torch")
"""Whose versions decide the last digits."""


@dataclass(frozen=True)
class ResultFiles:
    """A store (`metrics.memo.Store`) that keeps every result in a file of `folder`.

    `code` stands for the code that computes them, by default all estimators (`code_version`).
    """

    folder: Path
    code: str | None = None

    def __call__(
        self, name: str, arguments: Sequence[str], compute: Callable[[], Arrays]
    ) -> Arrays:
        """What `compute` returns, computed by this code once."""
        parts = {
            "function": name,
            "code": code_version() if self.code is None else self.code,
            "arguments": list(arguments),
        }
        return remembered_on_disk(self.folder, name, parts, compute)


def remembered_on_disk(
    folder: Path, name: str, parts: Mapping[str, Any], compute: Callable[[], Arrays]
) -> Arrays:
    """What `compute` returns, from a file in `folder` if one holds it; read-only arrays.

    `parts` is everything that the result depends on, as JSON: their hash is the file's name and is
    in it, so that nothing else can be found under it. A file that does not have the checksum of
    its content is replaced.
    """
    key = digest(parts)
    path = folder / f"{name}-{key[:24]}.npz"
    arrays = _load(path, key)
    if arrays is None:
        made = compute()
        checksum = np.array([content_digest(made, {"key": key})])
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, checksum=checksum, **made)
        # Read back, so that the first run sees exactly what later ones see.
        arrays = _read(path)
        del arrays["checksum"]
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _load(path: Path, key: str) -> Arrays | None:
    """The arrays of a file; None if there is none, or its checksum is not of its content."""
    try:
        arrays = _read(path)
        stored = str(arrays.pop("checksum")[0])
        if stored == content_digest(arrays, {"key": key}):
            return arrays
    except FileNotFoundError:
        return None
    except (*DAMAGE, TokenError):
        pass
    tell_damaged(path)
    return None


def _read(path: Path) -> Arrays:
    """Copies own their data, without which no result for them would be remembered."""
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        # What is compressed may unfold into more than there is memory for.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].copy() for name in file.files}


@functools.cache
def code_version() -> str:
    """SHA-256 of the source of all estimators, and of the libraries' versions."""
    found = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for path in sorted(Path(metrics.__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
