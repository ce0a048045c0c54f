"""How discrete consistency training shrinks the spread, and what its chain of levels predicts.

For Gaussian data of standard deviation s, an exact fit multiplies the deviation of samples by
cos(A_t - A_r), A = atan(sigma / s), over every pair of levels t -> r, so that a one-step sample has
the standard deviation s prod cos(dA) along the chain sigma_max -> r(sigma_max) -> ... -> 0. The
classes of modes1d are Gaussians of s = 0.2. Each method is trained up to several last stages, with
equally many iterations; what the formula leaves is the network's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt

from benchmarks.findings.common import over_seeds, sampled, trained, write
from methods.consistency import smaller_sigma

STD = 0.2
STAGES = (0, 2, 4, 6)
SAMPLES = 4000


def chain(config: Any, exponent: int) -> float:
    """The standard deviation of exact one-step samples over that of the data."""
    level, ratio = config.sigma_max, 1.0
    while level > 0:
        at = torch.tensor(level, dtype=torch.float64)
        smaller = float(smaller_sigma(at, exponent, config.q, config.k, config.b))
        # The network at the lowest levels is the identity up to sigma_min.
        ratio *= math.cos(math.atan(level / STD) - math.atan(smaller / STD))
        level = smaller if smaller > 1e-9 else 0.0
    return ratio


def main() -> None:
    """Write the table and the figure."""
    rows = []
    for method, offset in (("ct", 1), ("igct", 0)):
        for stage in STAGES:
            settings = {"first_stage": 0, "last_stage": stage}
            for run in trained(f"findings-spread-{stage}", method, "modes1d", settings):
                x, y = sampled(run, 1.0, SAMPLES)
                within = np.sqrt(np.mean([x[y == k].var() for k in np.unique(y)]))
                own = {"method": method, "stage": stage, "seed": run.card.seed}
                rows.append({**own, "line": "measured", "value": within / STD})
                exact = chain(run.method.config, stage + offset)
                rows.append({**own, "line": "closed form", "value": exact})
    table = over_seeds(pd.DataFrame(rows), ["method", "line", "stage"])
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for place, (name, part) in zip(axes, table.groupby("method", sort=False), strict=True):
        for line, points in part.groupby("line", sort=False):
            bars = np.nan_to_num((points["high"] - points["mean"]).to_numpy(dtype=float))
            place.errorbar(points["stage"], points["mean"], bars, label=line, marker="o", capsize=2)
        place.set(title=name, xlabel="last stage", ylabel="std of a class over that of the data")
        place.axhline(1, color="grey", lw=0.8)
    axes[0].legend()
    sns.despine(figure)
    write("spread", table, figure)


if __name__ == "__main__":
    main()
