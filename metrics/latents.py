"""How much the latents of an inversion differ from the initial noise of a sampler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class LatentStats:
    """Statistics of n latents of D dimensions, divided by sigma_max.

    `mean`, `std`, `skewness` and `excess_kurtosis` are over all n D values and 0, 1, 0, 0 for noise
    N(0, 1), and so is `ks`, the Kolmogorov-Smirnov distance to it. `spread_of_means` and
    `spread_of_stds` are standard deviations over the dimensions, about 1 / sqrt(n) and
    1 / sqrt(2 n) for noise. `neighbours` is the correlation of horizontal and vertical neighbours,
    0 for noise.
    """

    mean: float
    std: float
    spread_of_means: float
    spread_of_stds: float
    skewness: float
    excess_kurtosis: float
    ks: float
    neighbours: float


def latent_stats(latents: Tensor, sigma_max: float) -> LatentStats:
    """Statistics of image latents (n, C, H, W) at `sigma_max`.

    ValueError for fewer than two latents, or constant ones, whose moments are undefined.
    """
    if latents.ndim != 4 or len(latents) < 2:
        raise ValueError(f"expected at least two latents (n, C, H, W), got {tuple(latents.shape)}")
    z = latents.double().cpu().numpy() / sigma_max
    flat = z.reshape(len(z), -1)
    if z.min() == z.max():
        raise ValueError("the latents are constant")
    return LatentStats(
        mean=float(z.mean()),
        std=float(z.std()),
        spread_of_means=float(flat.mean(0).std()),
        spread_of_stds=float(flat.std(0, ddof=1).std()),
        skewness=float(stats.skew(z, axis=None)),
        excess_kurtosis=float(stats.kurtosis(z, axis=None)),
        ks=float(stats.kstest(z.ravel(), "norm").statistic),
        neighbours=_neighbours(z),
    )


def _neighbours(z: npt.NDArray[np.float64]) -> float:
    """Pearson's correlation over all pairs of horizontal and vertical neighbours; 0 for 1x1."""
    pairs = [(z[..., :, :-1], z[..., :, 1:]), (z[..., :-1, :], z[..., 1:, :])]
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    if first.size == 0 or first.std() == 0.0 or second.std() == 0.0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
