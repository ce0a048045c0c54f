"""Statistics files of EDM, ADM, clean-fid, dgm-eval and EDM2; nothing in them is run."""

from __future__ import annotations

import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.batches import read_batch
from bench.data.untrusted import DAMAGE, open_array, take
from bench.evaluation.statistics.base import (
    ABOUT,
    Statistics,
    checked_features,
    checked_moments,
    parse_card,
)
from bench.system.errors import UserError, said, unknown
from metrics.moments import moments_of

PICKLES = (".pkl", ".pickle")
MARKS = {"mu.npy", "reps.npy", "feats.npy"}
MOST_BYTES = 1 << 32
"""Most bytes of one array: a small archive can claim far more than the memory."""
MOST_TEXT = 1 << 16
EDM2_EXTRACTORS = {"fid": "inception", "fd_dinov2": "dinov2"}


def split_section(text: str) -> tuple[Path, str]:
    """Split 'FILE.pkl#fid' into file and section; the section is '' if there is none."""
    path, mark, section = text.rpartition("#")
    if not mark or Path(text).exists():
        return Path(text), ""
    return Path(path), section


def is_statistics(path: Path) -> bool:
    """Whether a path is a statistics file rather than only images."""
    if path.suffix.lower() in PICKLES:
        return path.is_file()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return bool(MARKS & set(file.namelist()))
    except DAMAGE:
        return False  # reading it will report the damage


def read_statistics(path: Path, section: str = "") -> Statistics:
    """Everything in a statistics file, checked.

    An npz with `mu` and `sigma` (EDM, pytorch-fid, clean-fid), optionally with `mu_s`, `sigma_s`
    and images `arr_0` (ADM); an npz with `reps` (dgm-eval) or `feats` (clean-fid's KID); or the
    `section` of a pickle of EDM2. UserError for anything else, for damage and for invalid numbers.
    """
    if not path.is_file():
        raise UserError(f"There is no statistics file {path}.")
    if path.suffix.lower() in PICKLES:
        return _edm2(path, section)
    if section:
        raise UserError(f"{path} is not a pickle and has no sections: drop #{section}.", code=2)
    try:
        with zipfile.ZipFile(path) as file:
            return _npz(path, file)
    except DAMAGE as error:
        raise UserError(f"Cannot read {path}: {said(error)}.") from None


def _npz(path: Path, file: zipfile.ZipFile) -> Statistics:
    names = set(file.namelist())
    card = parse_card(_text(file)) if f"{ABOUT}.npy" in names else None
    n = card.n if card else 0
    for name, kind in (("reps", "dgm-eval"), ("feats", "clean-fid features")):
        if f"{name}.npy" in names:
            features = checked_features(path, _array(path, file, name), name)
            moments = moments_of(features)
            return Statistics(path, kind, moments, features=features, n=len(features), card=card)
    if "mu.npy" not in names:
        found = ", ".join(sorted(name.removesuffix(".npy") for name in names)) or "nothing"
        raise ValueError(f"it holds {found} instead of mu and sigma, reps, or feats")
    moments = checked_moments(path, _array(path, file, "mu"), _array(path, file, "sigma"), n)
    if {"mu_s.npy", "sigma_s.npy"} <= names:
        pair = _array(path, file, "mu_s"), _array(path, file, "sigma_s")
        spatial = checked_moments(path, *pair, n, "mu_s, sigma_s")
        images = "arr_0.npy" in names
        return Statistics(path, "ADM", moments, spatial, n=n, images=images, card=card)
    return Statistics(path, "mu, sigma", moments, n=n, card=card)


def _array(path: Path, file: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    stream, shape, dtype = open_array(file, f"{name}.npy")
    with closing(stream):
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size > MOST_BYTES:
            raise ValueError(f"{name} claims {dtype} {shape}, too large for statistics")
        return take(stream, shape, dtype, path)


def _text(file: zipfile.ZipFile) -> str:
    stream, shape, dtype = open_array(file, f"{ABOUT}.npy")
    with closing(stream):
        if dtype.kind != "U" or shape != (1,) or dtype.itemsize > MOST_TEXT:
            return ""
        return str(take(stream, shape, dtype, ABOUT)[0])


def _edm2(path: Path, section: str) -> Statistics:
    """`{num_images, fid: {mu, sigma}, fd_dinov2: {mu, sigma}}`."""
    with path.open("rb") as file:
        found = read_batch(path, file, path.name)
    sections = {
        str(name): part
        for name, part in found.items()
        if isinstance(part, dict) and {"mu", "sigma"} <= {_name(key) for key in part}
    }
    if not sections:
        raise UserError(f"{path} has no section with mu and sigma, as EDM2's reference files have.")
    if not section and len(sections) > 1:
        names = " or ".join(f"{path}#{name}" for name in sorted(sections))
        raise UserError(f"{path} has several sections: name one, as in {names}.", code=2)
    chosen = section or next(iter(sections))
    if chosen not in sections:
        raise unknown(f"section of {path}", chosen, sections)
    part = {_name(key): getattr(value, "value", value) for key, value in sections[chosen].items()}
    count = found.get("num_images")
    n = count if type(count) is int and count >= 2 else 0
    moments = checked_moments(path, part["mu"], part["sigma"], n, f"{chosen}: mu, sigma")
    return Statistics(
        path, f"EDM2 {chosen}", moments, n=n, extractor=EDM2_EXTRACTORS.get(chosen, "")
    )


def _name(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
