"""What a setting of a method does to its curves: one question, one setting, several training seeds.

    python -m benchmarks.findings.variants window
    python -m benchmarks.findings.variants share

window: where along the noise levels iGCT guides. share: the share of guided rows, at most p_max.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import bench
from bench.experiment.ranges import parse_range
from benchmarks.findings.common import (
    BASE,
    RESULTS,
    SEEDS_OF,
    curves_of,
    over_seeds,
    place_of,
    trained,
    write,
)

DISPLACEMENT = "displacement"
SAMPLES = {"modes1d": 2000, "modes2d": 2000, "digits": 300, "cifar16": 1000}
METRICS = {
    "modes1d": ("w1", "within3", DISPLACEMENT),
    "modes2d": ("w1", "within3", DISPLACEMENT),
    "digits": ("fd", "precision_k3", DISPLACEMENT),
    "cifar16": ("fd", "precision_k3", DISPLACEMENT, "contrast_ratio"),
}
"""Distance to the real data, quality, how far guidance moves samples, and contrast."""
EXTRACTOR = {
    "modes1d": "identity",
    "modes2d": "identity",
    "digits": "classifier",
    "cifar16": "classifier",
}


@dataclass(frozen=True)
class Question:
    """Values of one setting of igct, and another method beside them."""

    setting: str
    choices: Mapping[str, Sequence[Any]]
    """By data set."""
    guidance: str
    beside: str
    """Another method in the same figure, with its own settings."""

    def label(self, value: Any) -> str:
        """The line of a value, such as "11 to 14.3" or "p_max 0.5"."""
        if isinstance(value, list):
            return " to ".join(f"{end:g}" for end in value)
        return f"{self.setting} {value:g}"

    def settings(self, data: str, value: Any) -> dict[str, Any]:
        """The settings of igct."""
        return {**BASE.get(("igct", data), {}), self.setting: value}


WINDOWS = ([11.0, 14.3], [4.0, 6.0], [1.0, 3.0], [0.2, 0.3])
SHARES = (0.0, 0.3, 0.6, 0.9)
QUESTIONS = {
    "window": Question(
        "window",
        {"modes1d": WINDOWS, "modes2d": WINDOWS, "digits": WINDOWS, "cifar16": WINDOWS[:3]},
        "1,2,4,7,10,13",
        beside="edm",
    ),
    "share": Question(
        "p_max",
        {"modes1d": SHARES, "modes2d": SHARES, "digits": SHARES, "cifar16": (0.0, 0.5, 1.0)},
        "1",
        beside="ct",
    ),
}


def curves(
    question: str,
    label: str,
    data: str,
    settings: Mapping[str, Any],
    guidance: str,
    *,
    method: str = "igct",
    sampling: str = "0",
) -> pd.DataFrame:
    """The values of a variant on one data set: columns data, line, seed, draw, g, what, value.

    `seed` is that of the training, `draw` that of the samples, from the range `sampling`.
    """
    place, seeds = place_of(question, label, method, data, settings), SEEDS_OF[data]
    trained(place, method, data, settings, seeds)
    bench.sweep(
        method=[method], dataset=[data], guidance=guidance, samples=SAMPLES[data], seeds=sampling,
        metric=list(METRICS[data]), extractor=[EXTRACTOR[data]], experiment=place,
        results=RESULTS, workers=1, steps="18" if method == "edm" else "1",
    )  # fmt: skip
    frame, _ = bench.load(place, RESULTS)
    own = frame[
        (frame["dataset"] == data) & (frame["method"] == method)
        & frame["guidance"].isin(parse_range(guidance)) & frame["train_seed"].isin(seeds)
        & frame["seed"].isin(parse_range(sampling)) & (frame["n"] == SAMPLES[data])
        & frame["metric"].isin(METRICS[data])
    ]  # fmt: skip
    named = own.rename(
        columns={"guidance": "g", "seed": "draw", "train_seed": "seed", "metric": "what"}
    ).assign(data=data, line=label)
    return named[["data", "line", "seed", "draw", "g", "what", "value"]]


def equal_scales(frame: pd.DataFrame) -> pd.DataFrame:
    """The scale at which CFG moves samples as far, interpolated, by seed; at most CFG's largest."""
    rows = []
    moved = frame[frame["what"] == DISPLACEMENT]
    for (data, seed), group in moved.groupby(["data", "seed"]):
        cfg = group[group["line"] == "edm"].sort_values("g")
        for _, at in group[group["line"] != "edm"].iterrows():
            scale = np.interp(at["value"], np.maximum.accumulate(cfg["value"]), cfg["g"])
            rows.append({"data": data, "seed": seed, "line": at["line"], "g": at["g"],
                         "what": "CFG's scale of equal displacement", "value": scale})  # fmt: skip
    return pd.DataFrame(rows)


def main(name: str) -> None:
    """Answer one question."""
    question = QUESTIONS[name]
    parts = []
    for data, values in question.choices.items():
        for value in values:
            settings = question.settings(data, value)
            parts.append(curves(name, question.label(value), data, settings, question.guidance))
        beside = question.beside
        parts.append(curves(name, beside, data, {}, question.guidance, method=beside))
    frame = pd.concat(parts, ignore_index=True)
    if question.guidance == "1":
        frame = frame[frame["what"] != DISPLACEMENT]
    if question.beside == "edm":
        frame = pd.concat([frame, equal_scales(frame)], ignore_index=True)
    table = over_seeds(frame, ["data", "what", "line", "g"])
    write(name, table, curves_of(table))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in QUESTIONS:
        sys.exit(f"usage: python -m benchmarks.findings.variants {{{','.join(QUESTIONS)}}}")
    main(sys.argv[1])
