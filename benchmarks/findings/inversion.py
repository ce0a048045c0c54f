"""What iGCT's reconstruction loss costs generation.

Its weight lambda over four decades: the error of reconstructed images of the reference split, and
the distance of generated ones at g = 1.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt

from bench.data.convert import one_hot, to_model
from bench.data.find import find_dataset
from bench.training.run import Run, load_nets
from benchmarks.findings.common import CPU, over_seeds, place_of, trained, write
from benchmarks.findings.variants import curves
from methods import Guidance, Inverts

DATA = ("modes1d", "modes2d")
WEIGHTS = (0.0, 1e-4, 1e-2, 1.0)
REAL = 300


def error(run: Run) -> float:
    """Root mean square error of reconstructed real samples, in the units of the model."""
    split = find_dataset(run.card.dataset).reference
    x = to_model(split.samples[:REAL])
    labels = one_hot(torch.as_tensor(np.asarray(split.labels)[:REAL]), run.method.data.num_classes)
    assert isinstance(run.method, Inverts)
    nets = load_nets(run, CPU)
    with torch.inference_mode():
        latent = run.method.invert(nets, x, labels)
        back = run.method.edit(nets, latent, labels, Guidance(1.0))
    return float((back - x).square().mean().sqrt())


def main() -> None:
    """Write the table and the figure."""
    rows = []
    for data, weight in product(DATA, WEIGHTS):
        settings = {"reconstruction_weight": weight}
        found = curves("inversion", f"{weight:g}", data, settings, "1")
        for _, row in found[found["what"] == "w1"].iterrows():
            rows.append({"data": data, "weight": weight, "what": "W1 of samples at g = 1",
                         "seed": row["seed"], "value": row["value"]})  # fmt: skip
        place = place_of("inversion", f"{weight:g}", "igct", data, settings)
        for run in trained(place, "igct", data, settings):
            rows.append({"data": data, "weight": weight, "what": "RMS error of reconstruction",
                         "seed": run.card.seed, "value": error(run)})  # fmt: skip
    seeds = pd.DataFrame(rows)
    table = over_seeds(seeds, ["data", "what", "weight"])
    names = list(seeds["what"].unique())
    figure, axes = plt.subplots(len(DATA), len(names), figsize=(9, 6.4))
    for place, (data, what) in zip(axes.flat, product(DATA, names), strict=True):
        points, own = (f[(f["data"] == data) & (f["what"] == what)] for f in (table, seeds))
        at = {w: f"{w:g}" for w in points["weight"]}
        place.scatter(
            own["weight"].map(at), own["value"], s=14, color="grey", label="training seeds"
        )
        half = points["high"] - points["mean"]
        place.errorbar(points["weight"].map(at), points["mean"], half, marker="o", capsize=2,
                       label="mean, 95%")  # fmt: skip
        place.set(title=f"{data}: {what}", xlabel="weight of the reconstruction loss")
        place.set_ylim(bottom=0)
    axes[0, 0].legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    write("inversion", table, figure)


if __name__ == "__main__":
    main()
