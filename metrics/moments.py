"""Mean and covariance of a stream of features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from metrics.base import Array, Moments

CANCELLED = 1e-3
"""A difference below this share of the scatter has lost too many digits."""


class MomentAccumulator:
    """Mean and covariance of (B, D) batches in float64, without keeping the batches.

    Each batch is centred by its own mean and merged by the pairwise update of Chan, Golub and
    LeVeque (1979). So a large common offset costs no digits, and the split into batches changes
    the result by rounding only.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"features need at least one dimension, got {dim}")
        self.n = 0
        self._mean: Array = np.zeros(dim)
        self._scatter: Array = np.zeros((dim, dim))

    def update(self, features: npt.NDArray[np.floating]) -> None:
        """Add a batch (B, D) of any floating dtype; ValueError on another shape."""
        if features.ndim != 2 or features.shape[1] != len(self._mean):
            raise ValueError(
                f"expected features of shape (B, {len(self._mean)}), got {features.shape}"
            )
        size = len(features)
        if size == 0:
            return
        rows = features.astype(np.float64)
        mean = rows.mean(axis=0)
        step = mean - self._mean
        total = self.n + size
        # The step between the two means is added as one more row: one product suffices.
        rows = np.vstack([rows - mean, np.sqrt(self.n * size / total) * step])
        self._scatter += rows.T @ rows
        self._mean = self._mean + step * (size / total)
        self.n = total

    def finish(self) -> Moments:
        """Moments of everything seen, covariance divided by n - 1; ValueError if n < 2."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        mean = self._mean.copy()
        cov = self._scatter / (self.n - 1)
        for array in (mean, cov):
            array.setflags(write=False)
        return Moments(self.n, mean, cov)


def moments_of(features: npt.NDArray[np.floating]) -> Moments:
    """Moments of one array (n, D)."""
    accumulator = MomentAccumulator(features.shape[1])
    accumulator.update(features)
    return accumulator.finish()


def moments_without(
    features: npt.NDArray[np.floating], moments: Moments, groups: npt.NDArray[np.int64]
) -> Iterator[Moments]:
    """Moments of features (n, D) without each group in turn; `moments` are those of all.

    The group's scatter about the common mean is subtracted from the total, which takes one pass for
    all groups together. If hardly anything remains, as without an outlier, the difference would be
    rounding: the rest is then summed directly. ValueError if fewer than 2 samples remain.
    """
    if features.shape != (moments.n, len(moments.mean)) or groups.shape != features.shape[:1]:
        raise ValueError(
            f"features {features.shape} and groups {groups.shape} do not belong to moments of "
            f"{moments.n} samples in {len(moments.mean)} dimensions"
        )
    total = np.trace(moments.cov) * (moments.n - 1)
    for group in range(int(groups.max()) + 1):
        out = features[groups == group].astype(np.float64) - moments.mean
        kept = moments.n - len(out)
        if kept < 2:
            raise ValueError(f"a covariance needs at least 2 samples, {kept} remain")
        moved = out.sum(axis=0)
        # The mean changes too: one more row, as when batches are merged.
        rows = np.vstack([out, moved / np.sqrt(kept)])
        left = total - float((rows * rows).sum())
        if left <= CANCELLED * total:
            yield moments_of(features[groups != group])
            continue
        scatter = moments.cov * (moments.n - 1)
        scatter -= rows.T @ rows
        yield Moments(kept, moments.mean - moved / kept, scatter / (kept - 1))
