"""Whether iGCT's guidance is a pull to the class mean at high noise.

For samples of the same noise at g and at g = 1, d is their difference. Its share along a direction
u of each sample is sum <d, u>^2 / sum |d|^2; a random direction has 1 / dimension. The directions
are to the class mean from the sample, mean_c - x, and from the mean of all data, mean_c - mean.

The prediction is the ODE that iGCT's loss describes, with exact denoisers: with probability
p(sigma) its target steps along (1 + w) mean_c - w D_null instead of D_c (Hsu, Kao, Balestriero
2025). Above the window p is p_max, below it 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.data.convert import one_hot, sampling_labels, to_model
from bench.data.find import find_dataset
from benchmarks.findings.common import (
    PRESETS,
    SEEDS,
    Samples,
    curves_of,
    over_seeds,
    sampled,
    trained,
    write,
)
from methods import METHODS, SampleRNG
from methods.igct_config import IGCTConfig
from methods.igct_loss import guided_probability
from methods.oracle import exact_denoised
from methods.samplers import karras_sigmas, sample_heun
from methods.spec import Mixture

DATA: Mapping[str, tuple[int, str, Sequence[int], Mapping[str, Mapping[str, Any]]]] = {
    "modes1d": (2000, PRESETS, SEEDS, {}),
    "modes2d": (2000, PRESETS, SEEDS, {}),
    "digits": (
        300,
        "embedded",
        (0,),
        {
            "edm": {"train.iterations": 1000},
            "igct": {"train.iterations": 900},
        },
    ),
    "cifar16": (
        300,
        "cifar16",
        (0,),
        {
            "edm": {"train.iterations": 6000},
            "igct": {"train.iterations": 1000},
        },
    ),
}
"""Samples, experiment, training seeds and settings; on images the runs of the references."""
DRAWS = 1000
SCALES = (2.0, 4.0, 7.0, 13.0)
STEPS = 200
"""Steps of the exact ODE: many, because p(sigma) is steep."""


def exact(mixture: Mixture, config: IGCTConfig, g: float, n: int) -> Samples:
    """The samples (n, D) to which iGCT's loss leads, from the noise of seed 0."""
    classes = len(mixture.means)
    labels = one_hot(sampling_labels(torch.arange(n), classes), classes)
    means = torch.tensor([np.mean(modes, axis=0) for modes in mixture.means])
    target = (1 + (g - 1)) * labels.to(means) @ means
    noise = SampleRNG(0, range(n)).randn((means.shape[1],), torch.device("cpu"))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        p = guided_probability(sigma.double(), config.window, config.window_power, config.p_max)
        plain = exact_denoised(x, sigma, labels, mixture)
        null = exact_denoised(x, sigma, torch.zeros_like(labels), mixture)
        return (1 - p) * plain + p * (target - (g - 1) * null)

    sigmas = karras_sigmas(STEPS, config.sigma_min, config.sigma_max)
    return sample_heun(denoise, config.sigma_max * noise, sigmas).numpy()


def share(moved: Samples, along: Samples) -> tuple[Samples, Samples]:
    """Squared differences (n, D) along directions (n, D), and in all: two (n,), to be summed."""
    length = np.linalg.norm(along, axis=1, keepdims=True)
    unit = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    return (moved * unit).sum(1) ** 2, (moved**2).sum(1)


def resampled(over: Samples, under: Samples) -> tuple[float, float]:
    """The 95% interval of sum(over) / sum(under), both (n,), by the bootstrap over samples."""
    drawn = np.random.default_rng(0).integers(len(over), size=(DRAWS, len(over)))
    low, high = np.quantile(over[drawn].sum(1) / under[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


def measured(name: str) -> pd.DataFrame:
    """All values of one data set, with intervals over samples: low, high."""
    data, (n, experiment, seeds, settings) = find_dataset(name), DATA[name]
    split = data.train
    real = to_model(split.samples[:]).flatten(1).double().numpy()
    of = np.asarray(split.labels)
    centre = np.stack([real[of == k].mean(0) for k in range(data.spec.num_classes)])
    rows: list[dict[str, object]] = []

    def add(line: str, seed: int, g: float, plain: Samples, guided: Samples, y: Samples) -> None:
        moved, found = guided - plain, centre[y]
        values = {"displacement": (np.linalg.norm(moved, axis=1), np.ones(len(moved)))}
        if moved.shape[1] > 1:  # on a line there is one direction
            values["share to the class mean"] = share(moved, found - plain)
            values["share from mean to class mean"] = share(moved, found - real.mean(0))
        for what, (over, under) in values.items():
            low, high = resampled(over, under)
            rows.append({"data": name, "line": line, "g": g, "what": what, "seed": seed,
                         "value": over.sum() / under.sum(), "low": low, "high": high})  # fmt: skip

    methods = ["edm", "igct", *(["oracle"] if data.spec.mixture else [])]
    for method in methods:
        for run in trained(experiment, method, name, settings.get(method), seeds):
            plain, y = sampled(run, 1.0, n)
            for g in SCALES:
                add(method, run.card.seed, g, plain, sampled(run, g, n)[0], y)
    if data.spec.mixture:
        config = METHODS["igct"].presets[name].config
        assert isinstance(config, IGCTConfig)
        plain = exact(data.spec.mixture, config, 1.0, n)
        y = sampling_labels(torch.arange(n), data.spec.num_classes).numpy()
        for g in SCALES:
            guided = exact(data.spec.mixture, config, g, n)
            add("igct, exact", 0, g, plain, guided, y)
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table and the figure."""
    frame = pd.concat([measured(name) for name in DATA])
    by = ["data", "what", "line", "g"]
    table = over_seeds(frame, by).set_index(by)
    # The only run of a line has no error of training, but one of its samples.
    single = table.index[table["seeds"] == 1]
    table.loc[single, ["low", "high"]] = frame.set_index(by).loc[single, ["low", "high"]]
    table = table.reset_index()
    write("pull", table, curves_of(table, log=["displacement"]))


if __name__ == "__main__":
    main()
