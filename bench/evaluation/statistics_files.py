"""Statistics files of EDM, ADM, clean-fid, torch-fidelity, dgm-eval and EDM2; runs no code."""

from __future__ import annotations

import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.data.batches import read_batch
from bench.data.untrusted import DAMAGE, open_array, read_member, take
from bench.system.errors import UserError, said, unknown
from bench.system.files import atomic_file
from metrics.base import Array, Moments
from metrics.moments import moments_of

PICKLES = (".pkl", ".pickle")
FEATURES = {"reps": "dgm-eval", "feats": "clean-fid features", "pool_3": "features of pool_3"}
MOMENTS = (("mu", "sigma"), ("mean", "cov"))
MARKS = (*({f"{name}.npy"} for name in FEATURES), {"mu.npy"}, {"mean.npy", "cov.npy"})
MOST_BYTES = 1 << 32
"""Most bytes of one array: a small archive can claim far more than the memory."""
MOST_TEXT = 1 << 16
EDM2_EXTRACTORS = {"fid": "inception", "fd_dinov2": "dinov2"}
MOST_DIMS = 16_384
ROUNDING = {4: 1e-4, 8: 1e-7}
"""Allowed asymmetry and negativity relative to the largest entry or eigenvalue, by item size."""
ABOUT = "about"
"""The array of one string that holds the card in our own files."""
FORMATS = ("edm", "adm", "clean-fid", "torch-fidelity")
SUFFIX = {"edm": ".npz", "adm": ".npz", "clean-fid": ".npz", "torch-fidelity": ".pt"}


class StatisticsCard(BaseModel):
    """The origin of a statistics file of our own; other files do not state it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    extractor: str
    extractor_hash: str
    spatial_hash: str = ""
    n: int = Field(ge=2)
    source: str
    source_hash: str
    created: str = ""


@dataclass(frozen=True)
class Statistics:
    """Statistics of one set of images: moments, features (n, D), or both.

    `n`, here and in the moments, is 0 if the file does not state it. `images`: whether the file
    also holds images of the set. `extractor` follows from the name of the section, if any.
    """

    path: Path
    kind: str
    moments: Moments | None = None
    spatial: Moments | None = None
    features: npt.NDArray[np.float32] | None = None
    n: int = 0
    images: bool = False
    extractor: str = ""
    card: StatisticsCard | None = None


def parse_card(text: str) -> StatisticsCard | None:
    """The card of our own files; None if the text is not a card."""
    try:
        return StatisticsCard.model_validate_json(text)
    except ValidationError:
        return None


def checked_moments(path: Path, mu: Any, sigma: Any, n: int, names: str = "mu, sigma") -> Moments:
    """Read-only float64 moments of mu (D,) and sigma (D, D), both float32 or float64.

    UserError unless both are finite, and sigma is symmetric without negative eigenvalues, up to
    rounding.
    """

    def refuse(why: str) -> UserError:
        return UserError(f"{path} holds no statistics of features ({names}): {why}.")

    for array in (mu, sigma):
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.itemsize < 4:
            raise refuse("they are not arrays of float32 or float64")
    if mu.ndim != 1 or not 1 <= len(mu) <= MOST_DIMS or sigma.shape != (len(mu), len(mu)):
        raise refuse(
            f"shapes are {mu.shape} and {sigma.shape}, not (D,) and (D, D) with D <= {MOST_DIMS}"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise refuse("some are NaN or infinite")
    allowed = ROUNDING[min(sigma.itemsize, 8)]
    mean: Array = mu.astype(np.float64)
    cov: Array = sigma.astype(np.float64)
    scale = float(np.abs(cov).max())
    if float(np.abs(cov - cov.T).max()) > allowed * scale:
        raise refuse("sigma is not symmetric")
    cov = (cov + cov.T) / 2
    values = np.linalg.eigvalsh(cov)
    if values[0] < -allowed * max(float(values[-1]), 0.0) or float(values[-1]) < 0:
        raise refuse(f"sigma is not a covariance: it has the eigenvalue {values[0]:.3g}")
    for array in (mean, cov):
        array.setflags(write=False)
    return Moments(n, mean, cov)


def checked_features(path: Path, found: Any, name: str) -> npt.NDArray[np.float32]:
    """Read-only float32 features (n, D); UserError unless they are finite and n >= 2."""
    if (
        not isinstance(found, np.ndarray)
        or found.dtype.kind != "f"
        or found.ndim != 2
        or len(found) < 2
        or not 1 <= found.shape[1] <= MOST_DIMS
    ):
        shape = getattr(found, "shape", None)
        raise UserError(
            f"{path}: {name} {shape} is not an array of fractions (n, D) with n >= 2 and "
            f"D <= {MOST_DIMS}."
        )
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise UserError(
            f"{path}: {name} holds NaN or infinity, first in row {int(bad.argmax())} of "
            f"{len(found):,}."
        )
    features: npt.NDArray[np.float32] = found.astype(np.float32, copy=True)
    features.setflags(write=False)
    return features


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
            return any(mark <= set(file.namelist()) for mark in MARKS)
    except DAMAGE:
        return False  # reading it will report the damage


def read_statistics(path: Path, section: str = "") -> Statistics:
    """Everything in a statistics file, checked.

    An npz with `mu` and `sigma` (EDM, pytorch-fid, clean-fid) or `mean` and `cov`, optionally with
    `mu_s`, `sigma_s` and images `arr_0` (ADM); an npz of features `reps` (dgm-eval), `feats`
    (clean-fid's KID) or `pool_3`; or the `section` of a pickle of EDM2. UserError for anything
    else, for damage and for invalid numbers.
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
    for name, kind in FEATURES.items():
        if f"{name}.npy" in names:
            features = checked_features(path, _array(file, name), name)
            moments = moments_of(features)
            return Statistics(path, kind, moments, features=features, n=len(features), card=card)
    pair = next((pair for pair in MOMENTS if f"{pair[0]}.npy" in names), ("", ""))
    if not pair[0]:
        held = ", ".join(sorted(name.removesuffix(".npy") for name in names)) or "nothing"
        known = ", ".join(FEATURES)
        raise ValueError(f"it holds {held} instead of mu and sigma, mean and cov, or {known}")
    mu, sigma = (_array(file, name) for name in pair)
    moments = checked_moments(path, mu, sigma, n, ", ".join(pair))
    if {"mu_s.npy", "sigma_s.npy"} <= names:
        spatial = checked_moments(
            path, _array(file, "mu_s"), _array(file, "sigma_s"), n, "mu_s, sigma_s"
        )
        images = "arr_0.npy" in names
        return Statistics(path, "ADM", moments, spatial, n=n, images=images, card=card)
    return Statistics(path, ", ".join(pair), moments, n=n, card=card)


def _array(file: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    return read_member(file, f"{name}.npy", MOST_BYTES)


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


def clean_fid_name(
    name: str, mode: str = "clean", split: str = "custom", res: str = "na", *, kid: bool = False
) -> str:
    """The lower-case file name under which clean-fid searches for statistics, or features (`kid`).

    `compute_fid(dataset_name=name, dataset_res=res, dataset_split=split)` finds it in the folder
    `stats` of the installed package.
    """
    return f"{name}_{mode}_{split}_{res}{'_kid' if kid else ''}.npz".lower()


def torch_fidelity_name(name: str, layer: str = "2048") -> str:
    """The file name in the cache folder of torch-fidelity for `input1_cache_name=name`."""
    return f"{name}-inception-v3-compat-stat-fid-{layer}.pt"


def write_statistics(
    path: Path,
    kind: str,
    moments: Moments,
    card: StatisticsCard,
    *,
    spatial: Moments | None = None,
    features: npt.NDArray[np.float32] | None = None,
) -> list[Path]:
    """Write one of `FORMATS` atomically; returns the files.

    npz files also hold the card, in a member that other readers ignore. "clean-fid" adds a second
    file of `features`, used for KID; "adm" needs `spatial`, because its reader wants both pairs.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, got {kind!r}")
    if kind == "torch-fidelity":
        with atomic_file(path) as file:
            # Its reader checks types: the mean must be float32, the covariance float64.
            torch.save({"mu": moments.mean.astype(np.float32), "sigma": moments.cov}, file)
        return [path]
    arrays: dict[str, Any] = {"mu": moments.mean, "sigma": moments.cov}
    if kind == "adm":
        if spatial is None:
            raise UserError(
                "ADM's file needs spatial statistics beside those of pooled features, which only "
                "--extractor inception has.",
                code=2,
            )
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.cov}
    arrays[ABOUT] = np.array([card.model_dump_json()])
    _save(path, arrays)
    if kind != "clean-fid":
        return [path]
    if features is None:
        raise ValueError("clean-fid's files need features")
    beside = path.with_name(f"{path.stem}_kid.npz")
    _save(beside, {"feats": features, ABOUT: arrays[ABOUT]})
    return [path, beside]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
