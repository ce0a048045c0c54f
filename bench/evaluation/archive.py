"""Sample sets as files, so that the real side is extracted once."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from bench.data.untrusted import DAMAGE as UNTRUSTED
from bench.system.files import atomic_file, check_regular
from metrics.base import ExactMixture, Moments, PixelStats, SampleSet
from metrics.memo import Arrays, content_digest

FORMAT = "guidance-bench sample set 2"
REASON_MOST = 200
DAMAGE = (*UNTRUSTED, TokenError)
"""What numpy and json raise on files that are not what they say."""


class CorruptSampleSet(ValueError):
    """The file is not a whole sample set; it can be removed and made again."""


def save_sample_set(path: Path, samples: SampleSet) -> None:
    """Write one npz file without pickles; the name appears only once the content is on disk."""
    arrays: Arrays = {"labels": samples.labels}
    about: dict[str, Any] = {"format": FORMAT, "n": samples.n, "moments": {}}
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
    about["sha256"] = content_digest(arrays, about)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> Arrays:
    """The arrays of an npz that was written here, which is never compressed; one of `DAMAGE`.

    Copies own their data, without which no result for them would be remembered.
    """
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        # What is compressed may unfold into more than there is memory for.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].copy() for name in file.files}


def load_sample_set(path: Path) -> SampleSet:
    """Read what `save_sample_set` wrote, with read-only arrays.

    FileNotFoundError if there is no file; CorruptSampleSet if it is damaged, truncated or
    something else.
    """
    try:
        arrays = load_arrays(path)
        about = json.loads(arrays.pop("about").tobytes())
        stored = about.pop("sha256")
        if about["format"] != FORMAT or stored != content_digest(arrays, about):
            raise CorruptSampleSet(f"{path} does not hold what was written: remove it")
        return _assembled(arrays, about)
    except (FileNotFoundError, CorruptSampleSet):
        raise
    except DAMAGE as error:
        # What zipfile says may hold names out of the file, of any length and letters.
        why = ascii(str(error)[:REASON_MOST])[1:-1]
        raise CorruptSampleSet(f"{path} is not a whole sample set ({why}): remove it") from error


def _assembled(arrays: Arrays, about: dict[str, Any]) -> SampleSet:
    for array in arrays.values():
        array.setflags(write=False)

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
        exact=(
            ExactMixture(tuple(modes[k] for k in sorted(modes)), about["std"])
            if "std" in about
            else None
        ),
    )
