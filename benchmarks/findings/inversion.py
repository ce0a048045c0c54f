"""What iGCT's reconstruction loss costs generation.

Its weight lambda over four decades: the error of reconstructed images of the reference split, and
the distance of generated ones at g = 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt

import bench
from bench.data.convert import one_hot, to_model
from bench.data.find import find_dataset
from bench.training.run import Run, load_nets
from benchmarks.findings.common import CPU, RESULTS, over_seeds, place_of, trained, write
from methods import Guidance, Inverts

METRIC = {"modes1d": ("w1", "identity", 2000)}
WEIGHTS = {"modes1d": (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
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
    for data, (metric, extractor, n) in METRIC.items():
        for weight in WEIGHTS[data]:
            settings = {"reconstruction_weight": weight}
            place = place_of("inversion", f"{weight:g}", "igct", data, settings)
            runs = trained(place, "igct", data, settings)
            bench.sweep(
                method=["igct"], dataset=data, guidance="1", samples=n, metric=[metric],
                extractor=[extractor], experiment=place, results=RESULTS, workers=1, steps="1",
            )  # fmt: skip
            frame, _ = bench.load(place, RESULTS)
            own = frame[(frame["dataset"] == data) & (frame["method"] == "igct")]
            for _, row in own.iterrows():
                rows.append({"data": data, "weight": weight, "what": f"{metric} at g = 1",
                             "seed": row["train_seed"], "value": row["value"]})  # fmt: skip
            for run in runs:
                rows.append({"data": data, "weight": weight, "what": "error of reconstruction",
                             "seed": run.card.seed, "value": error(run)})  # fmt: skip
    table = over_seeds(pd.DataFrame(rows), ["data", "what", "weight"])
    figure, axes = plt.subplots(1, len(METRIC), figsize=(9, 3.4))
    for place, (data, part) in zip(axes, table.groupby("data", sort=False), strict=True):
        for what, points in part.groupby("what", sort=False):
            bars = np.nan_to_num((points["high"] - points["mean"]).to_numpy(dtype=float))
            labels = [f"{w:g}" for w in points["weight"]]
            place.errorbar(labels, points["mean"], bars, label=what, marker="o", capsize=2)
        place.set(title=data, xlabel="weight of the reconstruction loss", yscale="log")
        place.legend()
    sns.despine(figure)
    write("inversion", table, figure)


if __name__ == "__main__":
    main()
