"""What the questions share: training variants, sampling them, intervals over seeds, files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

import bench
from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.sweep.generate import generate
from bench.training.card import make_card
from bench.training.run import Run, load_nets, open_run
from methods import METHODS, Guidance

mpl.use("Agg")
CPU = torch.device("cpu")
RESULTS = Path("results")
OUT = Path("results/reference/findings")
SEEDS = (0, 1, 2)
SEEDS_OF = {"modes1d": SEEDS, "modes2d": SEEDS, "digits": SEEDS, "cifar16": (0,)}
BATCH = 500
PRESETS = "findings"
"""The experiment of runs with the settings of their preset or `BASE`, for all questions."""
REFERENCE = {("edm", "cifar16"): "cifar16"}
"""Runs that are those of another experiment, since their training takes an hour."""
ITERATIONS = {("edm", "cifar16"): 6000, ("ct", "cifar16"): 500, ("igct", "cifar16"): 500}
"""Where not those of the preset."""
BASE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("igct", "cifar16"): {"window": [1.0, 3.0], "p_max": 1.0}
}
"""Settings, where not those of the preset, of which a question changes one."""
Samples = NDArray[np.float64]


def trained(
    experiment: str,
    method: str,
    dataset: str,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = SEEDS,
    **options: Any,
) -> list[Run]:
    """The runs of a method from several training seeds, trained where they are missing."""
    data, place = find_dataset(dataset), Experiment(RESULTS, experiment)
    if (method, dataset) in ITERATIONS:
        settings = {"train.iterations": ITERATIONS[method, dataset], **(settings or {})}
    settings = dict(settings or {})
    start = METHODS[method].presets[dataset].init_from
    for seed in seeds if start else ():
        assert start is not None
        name = f"{dataset}-{start}-s{seed}"
        home = home_of(start, dataset)
        if experiment != home and not (place.runs / name).exists():
            trained(home, start, dataset, seeds=[seed])
            shutil.copytree(Experiment(RESULTS, home).runs / name, place.runs / name)
    if METHODS[method].trains:
        bench.train(
            method=[method], dataset=dataset, seed=",".join(map(str, seeds)),
            setting=pairs(settings), experiment=experiment, results=RESULTS, **options,
        )  # fmt: skip
    runs = []
    for seed in seeds if METHODS[method].trains else (0,):
        card = make_card(method, data=data, seed=seed, overrides=settings)
        run = open_run(card, data, place)
        assert run is not None
        runs.append(run)
    return runs


def pairs(settings: Mapping[str, Any]) -> list[str]:
    """Settings as on the command line, NAME=VALUE."""
    return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]


def home_of(method: str, data: str) -> str:
    """The experiment of the runs of a method with the settings of all questions."""
    return REFERENCE.get((method, data), PRESETS)


def place_of(question: str, label: str, method: str, data: str, settings: Mapping[str, Any]) -> str:
    """The experiment of a variant; that of all questions if its settings are those of the base."""
    if not settings:
        return home_of(method, data)
    config = METHODS[method].presets[data].config.model_dump(mode="json")
    config |= BASE.get((method, data), {})
    if all(config[name] == value for name, value in settings.items()):
        return PRESETS
    return f"findings-{question}-{label.replace(' ', '-')}"


def sampled(run: Run, g: float, n: int, steps: int | None = None) -> tuple[Samples, Samples]:
    """Samples (n, D) in the units of the model and their classes (n,), of the noise of seed 0."""
    nets = load_nets(run, CPU)
    made = generate(
        run.method, nets, Guidance(g), steps or run.card.steps[0], 0, n, batch=BATCH, device=CPU
    )
    parts = [(_values(x), y.numpy()) for x, y in made]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _values(x: Tensor) -> Samples:
    values = x.flatten(1).double()
    return (values / 127.5 - 1 if x.dtype == torch.uint8 else values).numpy()


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean and 95% interval (Student's t) over training seeds; no interval for one seed."""
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        values = group[value].to_numpy(dtype=float)
        half = float("nan")
        if len(values) > 1:
            half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
        rows.append(
            dict(zip(by, key, strict=True))
            | {"mean": values.mean(), "low": values.mean() - half, "high": values.mean() + half}
            | {"seeds": len(values)}
        )
    return pd.DataFrame(rows)


def write(name: str, frame: pd.DataFrame, figure: Figure) -> None:
    """NAME.csv and NAME.png; the table is printed too."""
    OUT.mkdir(parents=True, exist_ok=True)
    frame.to_csv(OUT / f"{name}.csv", index=False, float_format="%.4g")
    figure.savefig(OUT / f"{name}.png", dpi=110, bbox_inches="tight")
    print(frame.to_string(index=False, float_format="%.4g"))


def curves_of(table: pd.DataFrame, *, log: Sequence[str] = ()) -> Figure:
    """A panel per data set (rows) and quantity (columns `what`), a curve per `line`, over `g`.

    Quantities that are measured at one scale only are drawn over the lines. `log`: quantities on a
    logarithmic axis.
    """
    sets = list(dict.fromkeys(table["data"]))
    colours = {line: f"C{i}" for i, line in enumerate(dict.fromkeys(table["line"]))}
    columns = max(table[table["data"] == d]["what"].nunique() for d in sets)
    figure, axes = plt.subplots(
        len(sets), columns, figsize=(3.6 * columns, 3.2 * len(sets)), squeeze=False
    )
    for row, data in zip(axes, sets, strict=True):
        part = table[table["data"] == data]
        groups = list(part.groupby("what", sort=False))
        for place in row[len(groups) :]:
            place.set_visible(False)
        for place, (what, values) in zip(row, groups, strict=False):
            alone = values["g"].nunique() < 2
            for line, points in values.groupby("line", sort=False):
                bars = np.nan_to_num((points["high"] - points["mean"]).to_numpy(dtype=float))
                place.errorbar(points["line" if alone else "g"], points["mean"], bars, label=line,
                               color=colours[line], marker="o", ms=4, lw=1.2,
                               capsize=2)  # fmt: skip
            place.set_title(f"{data}: {what}", fontsize=10)
            place.set_xlabel("" if alone else "guidance g")
            if what in log:
                place.set_yscale("log")
            if alone:
                place.tick_params(axis="x", rotation=30)
    if axes[0, 0].get_xlabel():
        axes[0, 0].legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    return figure
