"""Mean and covariance of a stream of features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metrics.base import Array, Moments


class MomentAccumulator:
    """Mean and covariance of (B, D) batches in float64, without keeping the batches.

    Each batch is centred by its own mean and merged by the pairwise update of Chan, Golub and
    LeVeque (1979), so that a large common offset costs no digits and the split into batches
    changes nothing beyond rounding.
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
        # The step between the two means enters as one more row: one product does it all.
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
