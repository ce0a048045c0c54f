"""How much spread iGCT's guided rows take from its samples at g = 1.

A guided row at level t takes a step to the level r towards an image of the class which is drawn
independently of x, on average towards the class mean, also at g = 1 (Hsu, Kao, Balestriero 2025).
For a Gaussian class with variance v along a direction, the exact fit is linear,
f_t(x) = mean + a_t (x - mean), and regression of the targets on x_t gives

    a_t = a_r [(1 - p(t)) (v + r t) / (v + t^2) + p(t) r / t],

where p(t) is the share of guided rows, whose start is taken as an image of the class too (it is one
of any class; its larger variance changes the results on images by at most .022). With p = 0 this is
the chain of `spread`; where p = 1 noise is only made smaller. Samples from noise of sigma_max have
the standard deviation sigma_max a. It is compared with what the trained networks do: in all, and
along the leading direction of the class.

    python -m benchmarks.findings.narrowing
    python -m benchmarks.findings.narrowing DATASET PRESET  # the closed form only
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
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
from methods.consistency import smaller_sigma
from methods.igct_config import IGCTConfig
from methods.igct_loss import guided_probability

LOWEST = 1e-9
DATA = ("modes1d", "modes2d", "digits", "cifar16")
DRAWN = ("digits", "cifar16")
ALL, FIRST = "all directions", "leading direction"


def principal(x: Samples, labels: NDArray[Any]) -> list[Samples]:
    """The principal directions of every class of x (n, D), columns (D, D), the leading one last."""
    classes = (x[labels == k] for k in np.unique(labels))
    return [np.linalg.eigh(np.atleast_2d(np.cov(own.T)))[1] for own in classes]


def variances(x: Samples, labels: NDArray[Any], directions: list[Samples]) -> Samples:
    """The variances of every class of x (n, D) along its directions: (classes, D)."""
    classes = (x[labels == k] for k in np.unique(labels))
    return np.stack([(own @ u).var(0, ddof=1) for own, u in zip(classes, directions, strict=True)])


def spreads(v: Samples, data: Samples) -> dict[str, float]:
    """The root of variances (classes, D) over those of the data: in all, and the leading one."""
    return {
        ALL: float(np.sqrt(v.sum() / data.sum())),
        FIRST: float(np.sqrt(v[:, -1].sum() / data[:, -1].sum())),
    }


def narrowed(v: Samples, config: IGCTConfig) -> Samples:
    """The variances (...) of one-step samples of an exact fit, for Gaussians of variances v."""
    level, scale = config.sigma_max, np.full_like(v, config.sigma_max)
    while level > 0:
        t = torch.tensor(level, dtype=torch.float64)
        p = float(guided_probability(t, config.window, config.window_power, config.p_max))
        r = float(smaller_sigma(t, config.last_stage, config.q, config.k, config.b))
        if r < LOWEST:  # the target is the clean image, in guided rows too
            p, r = 0.0, 0.0
        scale = scale * ((1 - p) * (v + r * level) / (v + level**2) + p * r / level)
        level = r
    return scale**2


@cache
def variances_of(name: str) -> tuple[list[Samples], Samples]:
    """The principal directions of the classes of a data set, and the variances along them."""
    split = find_dataset(name).train
    real, of = to_model(split.samples[:]).flatten(1).double().numpy(), np.asarray(split.labels)
    directions = principal(real, of)
    return directions, variances(real, of, directions)


def closed_form(name: str, preset: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """The exact spreads over those of a data set, for a preset of igct with other settings."""
    config = METHODS["igct"].presets[preset].config.model_copy(update=settings)
    assert isinstance(config, IGCTConfig)
    own = variances_of(name)[1]
    return spreads(narrowed(own, config), own)


def measured(name: str) -> pd.DataFrame:
    """Spread over that of the data: by the closed form, and of every training run."""
    directions, own = variances_of(name)
    rows: list[dict[str, object]] = []

    def add(line: str, source: str, found: Mapping[str, float]) -> None:
        for what, value in found.items():
            at = {"data": name, "what": what, "line": line, "source": source}
            rows.append({**at, "value": value})

    for question, asked in QUESTIONS.items():
        for value in asked.choices[name]:
            settings, label = asked.settings(name, value), asked.label(value)
            line = f"window {label}" if asked.setting == "window" else label
            add(line, "closed form", closed_form(name, name, settings))
            place = place_of(question, label, "igct", name, settings)
            for run in trained(place, "igct", name, settings, SEEDS_OF[name]):
                x, y = sampled(run, 1.0, SAMPLES[name], 1)
                add(line, "measured", spreads(variances(x, y, directions), own))
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table and the figure."""
    frame = pd.concat([measured(name) for name in DATA])
    table = over_seeds(frame, ["data", "what", "line", "source"])
    figure, axes = plt.subplots(len(DRAWN), 2, figsize=(9, 6.4), sharex=True, sharey="row")
    for row, name in zip(axes, DRAWN, strict=True):
        for place, what in zip(row, (ALL, FIRST), strict=True):
            part = table[(table["data"] == name) & (table["what"] == what)]
            for source, points in part.groupby("source", sort=False):
                half = np.nan_to_num((points["high"] - points["mean"]).to_numpy(dtype=float))
                style = {"fmt": "D", "mfc": "none"} if source == "closed form" else {"fmt": "o"}
                place.errorbar(points["mean"], points["line"], xerr=half, capsize=2, label=source,
                               **style)  # fmt: skip
            place.axvline(1, color="grey", lw=0.8)
            place.set(title=f"{name}: {what}", xlim=(0, None))
        row[0].invert_yaxis()
    for place in axes[-1]:
        place.set_xlabel("std within a class over that of the data")
    axes[0, 0].legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    write("narrowing", table, figure)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(closed_form(sys.argv[1], sys.argv[2], {}))
    else:
        main()
