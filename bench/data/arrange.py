"""The row of each image in a prepared file: training, then reference split, both shuffled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.data.sources import Listing
from bench.system.errors import UserError
from methods.rng import derive_seed

HOLD_OUT = "hold-out"
HOLD_OUT_N = 10_000
HOLD_OUT_SHARE = 10


@dataclass(frozen=True)
class Arrangement:
    """`rows[i]` is the row of image i of the listing; rows [0, train_n) are training images."""

    rows: npt.NDArray[np.int64]
    train_n: int
    reference_from: str


def arrange(listing: Listing, source: object, *, hold_out: bool = True) -> Arrangement:
    """Rows in a fixed order that depends only on the listing.

    Both splits are shuffled, because sources are often sorted by class and the first images of a
    split may stand for all of it, as in the real-versus-real floor. Without a reference split,
    min(10,000, n / 10) training images are held out, balanced over classes, at most half of each,
    unless not `hold_out`.
    """
    n, train_n = len(listing.labels), listing.train_n
    rng = np.random.Generator(np.random.Philox(key=derive_seed("prepared", "order")))
    train, reference_from = rng.permutation(train_n), listing.reference_from
    if train_n < n:
        reference = train_n + rng.permutation(n - train_n)
    elif not hold_out:
        reference = train[:0]
    else:
        held = _held_out(listing.labels[train], len(listing.class_names))
        train, reference, reference_from = train[~held], train[held], HOLD_OUT
    if len(reference) < 2 and hold_out:
        raise UserError(
            f"{source} has no test or val split, and its {n} images are too few to hold a "
            "reference out: add a split."
        )
    rows = np.empty(n, dtype=np.int64)
    rows[np.concatenate([train, reference])] = np.arange(n)
    return Arrangement(rows, len(train), reference_from)


def _held_out(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.bool_]:
    """The first images of every class, by quotas that are as equal as possible."""
    total = min(HOLD_OUT_N, len(labels) // HOLD_OUT_SHARE)
    counts = np.bincount(labels, minlength=classes)
    quota = np.minimum(total // classes + (np.arange(classes) < total % classes), counts // 2)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    starts = np.cumsum(counts) - counts
    rank[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    held: npt.NDArray[np.bool_] = rank < quota[labels]
    return held
