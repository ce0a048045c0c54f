"""Whether iGCT's guidance is a pull to the class mean at high noise.

For samples of the same noise at g and at g = 1, d is their difference. Its share along a direction
u of each sample is sum <d, u>^2 / sum |d|^2; a random direction has 1 / dimension. The directions
are to the class mean from the sample, mean_c - x, and from the mean of all data, mean_c - mean.

The prediction is the ODE that iGCT's loss describes, with exact denoisers: with probability
p(sigma) its target steps along (1 + w) mean_c - w D_null instead of D_c (Hsu, Kao, Balestriero
2025). Above the window p is p_max, below it 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.data.convert import one_hot, sampling_labels, to_model
from bench.data.find import find_dataset
from benchmarks.findings.common import Samples, curves_of, over_seeds, sampled, trained, write
from methods import METHODS, SampleRNG
from methods.igct_config import IGCTConfig
from methods.igct_loss import guided_probability
from methods.oracle import exact_denoised
from methods.samplers import karras_sigmas, sample_heun
from methods.spec import Mixture

DATA = {"modes1d": 2000, "modes2d": 2000}
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


def share(moved: Samples, along: Samples) -> float:
    """The share of the squared differences (n, D) that lies along directions (n, D)."""
    length = np.linalg.norm(along, axis=1, keepdims=True)
    unit = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    return float(((moved * unit).sum(1) ** 2).sum() / (moved**2).sum())


def measured(name: str) -> list[dict[str, object]]:
    """All values of one data set."""
    data, n = find_dataset(name), DATA[name]
    split = data.train
    real = to_model(split.samples[:]).flatten(1).double().numpy()
    of = np.asarray(split.labels)
    centre = np.stack([real[of == k].mean(0) for k in range(data.spec.num_classes)])
    rows: list[dict[str, object]] = []

    def add(line: str, seed: int, g: float, plain: Samples, guided: Samples, y: Samples) -> None:
        moved, found = guided - plain, centre[y]
        values = {"displacement": float(np.linalg.norm(moved, axis=1).mean())}
        if moved.shape[1] > 1:  # on a line there is one direction
            values["share to the class mean"] = share(moved, found - plain)
            values["share from mean to class mean"] = share(moved, found - real.mean(0))
        for what, value in values.items():
            rows.append({"data": name, "line": line, "g": g, "what": what, "seed": seed,
                         "value": value})  # fmt: skip

    methods = ["igct", "edm", *(["oracle"] if data.spec.mixture else [])]
    for method in methods:
        for run in trained("findings", method, name):
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
    return rows


def main() -> None:
    """Write the table and the figure."""
    frame = pd.DataFrame([row for name in DATA for row in measured(name)])
    table = over_seeds(frame, ["data", "what", "line", "g"])
    write("pull", table, curves_of(table, log=["displacement"]))


if __name__ == "__main__":
    main()
