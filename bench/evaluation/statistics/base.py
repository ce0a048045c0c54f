"""The content of a statistics file and its validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.system.errors import UserError
from metrics.base import Array, Moments

MOST_DIMS = 16_384
ROUNDING = {4: 1e-4, 8: 1e-7}
"""Allowed asymmetry and negativity relative to the largest entry or eigenvalue, by item size."""
ABOUT = "about"
"""The array of one string that holds the card in our own files."""


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
