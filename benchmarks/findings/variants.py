"""What a setting of a method does to its curves: one question, one setting, several training seeds.

    python -m benchmarks.findings.variants window
    python -m benchmarks.findings.variants share

window: where along the noise levels iGCT guides. share: the share of guided rows, at most p_max.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import bench
from bench.experiment.ranges import parse_range
from benchmarks.findings.common import (
    RESULTS,
    SEEDS,
    curves_of,
    over_seeds,
    place_of,
    trained,
    write,
)

DISPLACEMENT = "displacement"
SAMPLES = {"modes1d": 2000, "modes2d": 2000, "digits": 300}
METRICS = {
    "modes1d": ("w1", "within3", DISPLACEMENT),
    "modes2d": ("fd", "within3", DISPLACEMENT),
    "digits": ("fd", "precision_k3", DISPLACEMENT),
}
"""Distance to the real data, quality, and how far guidance moves samples."""
EXTRACTOR = {"modes1d": "identity", "modes2d": "identity", "digits": "classifier"}


@dataclass(frozen=True)
class Question:
    """Variants by their label: the settings of igct on each data set."""

    variants: Mapping[str, Mapping[str, Any]]
    data: tuple[str, ...] = ("modes1d",)
    guidance: str = "1,2,4,7,10,13"
    beside: tuple[str, ...] = field(default=())
    """Other methods in the same figure, with their own settings."""


QUESTIONS = {
    "window": Question(
        {
            f"{low:g} to {high:g}": {"window": [low, high]}
            for low, high in ((11.0, 14.3), (4.0, 6.0), (1.0, 3.0), (0.2, 0.3))
        },
        beside=("edm",),
    ),
    "share": Question(
        {f"p_max {p:g}": {"p_max": p} for p in (0.0, 0.3, 0.6, 0.9)}, guidance="1", beside=("ct",)
    ),
}  # fmt: skip


def curves(
    question: str,
    label: str,
    data: str,
    settings: Mapping[str, Any],
    guidance: str,
    *,
    method: str = "igct",
    seeds: Sequence[int] = SEEDS,
    sampling: str = "0",
) -> pd.DataFrame:
    """The values of a variant on one data set: columns data, line, seed, draw, g, what, value.

    `seed` is that of the training, `draw` that of the samples, from the range `sampling`.
    """
    place = place_of(question, label, method, data, settings)
    trained(place, method, data, settings, seeds)
    bench.sweep(
        method=[method], dataset=data, guidance=guidance, samples=SAMPLES[data], seeds=sampling,
        metric=list(METRICS[data]), extractor=[EXTRACTOR[data]], experiment=place,
        results=RESULTS, workers=1, steps="18" if method == "edm" else "1",
    )  # fmt: skip
    frame, _ = bench.load(place, RESULTS)
    own = frame[
        (frame["dataset"] == data) & (frame["method"] == method)
        & frame["guidance"].isin(parse_range(guidance)) & frame["train_seed"].isin(seeds)
        & frame["seed"].isin(parse_range(sampling))
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
    for data in question.data:
        for label, settings in question.variants.items():
            parts.append(curves(name, label, data, settings, question.guidance))
        for method in question.beside:
            parts.append(curves(name, method, data, {}, question.guidance, method=method))
    frame = pd.concat(parts, ignore_index=True)
    if question.guidance == "1":
        frame = frame[frame["what"] != DISPLACEMENT]
    if "edm" in question.beside:
        frame = pd.concat([frame, equal_scales(frame)], ignore_index=True)
    table = over_seeds(frame, ["data", "what", "line", "g"])
    write(name, table, curves_of(table))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in QUESTIONS:
        sys.exit(f"usage: python -m benchmarks.findings.variants {{{','.join(QUESTIONS)}}}")
    main(sys.argv[1])
