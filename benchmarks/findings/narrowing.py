"""How much spread iGCT's guided rows take from its samples at g = 1.

A guided row steps towards an image of the class that is drawn independently of x, so on average
towards the class mean (Hsu, Kao, Balestriero 2025), also at g = 1. With probability p(sigma) of
such rows the loss describes the ODE dx/dsigma = (x - D) / sigma with D = (1 - p) D_c + p mean_c.
If a class is Gaussian with variance v along a direction, then D_c - mean_c = v / (v + sigma^2)
times x - mean_c, and

    d ln(x - mean_c) / d ln sigma = 1 - (1 - p) v / (v + sigma^2).

What the ODE makes of noise of sigma_max, over all principal directions of the class, is compared
with what the trained networks do. Spread is the root of the trace of the covariance within a class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from bench.data.convert import to_model
from bench.data.find import find_dataset
from benchmarks.findings.common import (
    SEEDS_OF,
    Samples,
    over_seeds,
    place_of,
    sampled,
    trained,
    write,
)
from benchmarks.findings.variants import QUESTIONS, SAMPLES
from methods import METHODS
from methods.igct_config import IGCTConfig
from methods.igct_loss import guided_probability

LEVELS = 4000
DATA = ("modes1d", "modes2d", "digits", "cifar16")


def variances(x: Samples, labels: NDArray[Any]) -> list[Samples]:
    """The variances along the principal directions (D,) of every class of x (n, D)."""
    classes = (x[labels == k] for k in np.unique(labels))
    return [np.linalg.eigvalsh(np.atleast_2d(np.cov(own.T))).clip(min=0) for own in classes]


def spread(of: list[Samples]) -> float:
    """The root of the total variance within a class, averaged over classes."""
    return float(np.sqrt(np.mean([v.sum() for v in of])))


def narrowed(v: Samples, config: IGCTConfig) -> Samples:
    """The variances (D,) to which the ODE turns noise, for a Gaussian of variances v (D,)."""
    sigma = np.geomspace(config.sigma_min, config.sigma_max, LEVELS)
    levels = torch.from_numpy(sigma)
    p = guided_probability(levels, config.window, config.window_power, config.p_max).numpy()
    slope = 1 - (1 - p) * v[:, None] / (v[:, None] + sigma**2)
    contracted = np.trapezoid(slope, np.log(sigma), axis=1)
    return config.sigma_max**2 * np.exp(-2 * contracted)


def measured(name: str) -> pd.DataFrame:
    """Spread over that of the data: by the closed form, and of every training run."""
    split = find_dataset(name).train
    real = to_model(split.samples[:]).flatten(1).double().numpy()
    own = variances(real, np.asarray(split.labels))
    config = METHODS["igct"].presets[name].config
    rows = []
    for question, asked in QUESTIONS.items():
        for value in asked.choices[name]:
            settings, label = asked.settings(name, value), asked.label(value)
            changed = config.model_copy(update=settings)
            assert isinstance(changed, IGCTConfig)
            if asked.setting == "window":
                label = f"window {label}"
            at = {"data": name, "line": label}
            exact = spread([narrowed(v, changed) for v in own]) / spread(own)
            rows.append({**at, "what": "closed form", "value": exact})
            place = place_of(question, asked.label(value), "igct", name, settings)
            for run in trained(place, "igct", name, settings, SEEDS_OF[name]):
                x, y = sampled(run, 1.0, SAMPLES[name], 1)
                found = spread(variances(x, y)) / spread(own)
                rows.append({**at, "what": "measured", "value": found})
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table and the figure."""
    table = over_seeds(pd.concat([measured(d) for d in DATA]), ["data", "line", "what"])
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True)
    for place, (name, part) in zip(axes.flat, table.groupby("data", sort=False), strict=True):
        for what, points in part.groupby("what", sort=False):
            half = np.nan_to_num((points["high"] - points["mean"]).to_numpy(dtype=float))
            exact = what == "closed form"
            place.errorbar(points["mean"], points["line"], xerr=half, capsize=2, label=what,
                           fmt="D" if exact else "o", mfc="none" if exact else None)  # fmt: skip
        place.axvline(1, color="grey", lw=0.8)
        place.set(title=str(name), xlabel="spread within a class over that of the data")
        place.invert_yaxis()
    axes[0, 0].legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    write("narrowing", table, figure)


if __name__ == "__main__":
    main()
