"""Costly results on disk, named by the hash of what they depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

import metrics
from bench.data.untrusted import DAMAGE
from bench.experiment.identity import digest
from bench.system.files import atomic_file, check_regular, tell_damaged
from bench.system.sharing import in_turn, lease_path
from bench.system.workers import current_crew
from metrics.base import ExactMixture, Moments, PixelStats, SampleSet
from metrics.memo import Arrays, content_digest

LIBRARIES = ("numpy", "scipy", "torch")
"""Libraries whose versions affect the last digits."""


@dataclass(frozen=True)
class ResultFiles:
    """A store (`metrics.memo.Store`) that keeps each result in a file of `folder`.

    `code` identifies the code that computes them; None means all estimators (`code_version`).
    """

    folder: Path
    code: str | None = None

    def __call__(
        self, name: str, arguments: Sequence[str], compute: Callable[[], Arrays]
    ) -> Arrays:
        """The result of `compute`, which this version of the code runs only once."""
        parts = {
            "function": name,
            "code": code_version() if self.code is None else self.code,
            "arguments": list(arguments),
        }
        return remembered_on_disk(self.folder, name, parts, compute)


def remembered_on_disk(
    folder: Path, name: str, parts: Mapping[str, Any], compute: Callable[[], Arrays]
) -> Arrays:
    """The result of `compute`, from a file in `folder` if there is one; read-only arrays.

    `parts` is everything that the result depends on, as JSON. Its hash names the file and enters
    the stored checksum. A file whose content does not match its checksum is replaced. One process
    computes it; others, and a command that leaves computing to its workers, wait for the file.
    """
    key = digest(parts)
    path = folder / f"{name}-{key[:24]}.npz"
    arrays: Arrays | None = None

    def is_done(path: Path) -> bool:
        nonlocal arrays
        arrays = _load(path, key)
        return arrays is not None

    crew = current_crew()
    for _, done in in_turn([path], lease_path, is_done, _waiting, lambda _: crew.prepares()):
        if not done:
            if path.exists():
                tell_damaged(path)
            made = compute()
            checksum = np.array([content_digest(made, {"key": key})])
            with atomic_file(path) as file:
                np.savez(file, allow_pickle=False, checksum=checksum, **made)
            # Read it back, so that the first run gets exactly what later runs get.
            arrays = _read(path)
            del arrays["checksum"]
    assert arrays is not None
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _waiting(path: Path, holder: str) -> None:
    """Print nothing: what is shared is prepared in seconds, or the other process reports it."""


def _load(path: Path, key: str) -> Arrays | None:
    """The arrays of a file; None if it is missing or does not match its checksum."""
    try:
        arrays = _read(path)
        stored = str(arrays.pop("checksum")[0])
        if stored == content_digest(arrays, {"key": key}):
            return arrays
    except (FileNotFoundError, *DAMAGE, TokenError):
        pass
    return None


def _read(path: Path) -> Arrays:
    """Copies of the arrays in a file; `metrics.memo` needs arrays that own their data."""
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        # A compressed entry could expand beyond the available memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].copy() for name in file.files}


@functools.cache
def code_version() -> str:
    """SHA-256 of the source of all estimators and of the versions of libraries."""
    found = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for path in sorted(Path(metrics.__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def to_arrays(samples: SampleSet) -> Arrays:
    """The arrays of a sample set under names; all else is JSON in the bytes of `about`."""
    arrays: Arrays = {"labels": samples.labels}
    about: dict[str, Any] = {"n": samples.n, "moments": {}}
    arrays |= {f"features/{name}": value for name, value in samples.features.items()}
    arrays |= {f"logits/{name}": value for name, value in samples.logits.items()}
    for name, moments in samples.moments.items():
        about["moments"][name] = moments.n
        arrays |= {f"mean/{name}": moments.mean, f"cov/{name}": moments.cov}
    if samples.pixels is not None:
        arrays |= {f"pixels/{f.name}": getattr(samples.pixels, f.name) for f in fields(PixelStats)}
    if samples.exact is not None:
        about["std"] = samples.exact.std
        arrays |= {f"exact/{k:06}": modes for k, modes in enumerate(samples.exact.means)}
    return arrays | {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}


def from_arrays(arrays: Arrays) -> SampleSet:
    """The inverse of `to_arrays`."""
    about = json.loads(arrays["about"].tobytes())

    def under(kind: str) -> Arrays:
        start = f"{kind}/"
        return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}

    mean, cov, modes, pixels = under("mean"), under("cov"), under("exact"), under("pixels")
    return SampleSet(
        n=about["n"],
        labels=arrays["labels"],
        features=under("features"),
        logits=under("logits"),
        moments={name: Moments(n, mean[name], cov[name]) for name, n in about["moments"].items()},
        pixels=PixelStats(**pixels) if pixels else None,
        exact=ExactMixture(tuple(modes[k] for k in sorted(modes)), about["std"]) if modes else None,
    )
