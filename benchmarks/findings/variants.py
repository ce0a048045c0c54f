"""What a setting of a method does to its curves: one question, one setting, several training seeds.

    python -m benchmarks.findings.variants window
    python -m benchmarks.findings.variants share
    python -m benchmarks.findings.variants embedding

window: where along the noise levels iGCT guides. share: the share of guided rows, at most p_max.
embedding: the factor of w before its embedding, and how rough curves over neighbouring scales are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import bench
from benchmarks.findings.common import RESULTS, SEEDS, curves_of, over_seeds, trained, write

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
    rough: bool = False
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
    "embedding": Question(
        {f"scale {scale:g}": {"guidance_scale": scale} for scale in (1.0, 30.0, 1000.0)},
        guidance="1..13", rough=True,
    ),
}  # fmt: skip


def curves(experiment: str, method: str, label: str, data: str, question: Question,
           settings: Mapping[str, Any]) -> pd.DataFrame:  # fmt: skip
    """The values of one variant on one data set: columns data, line, seed, g, what, value."""
    trained(experiment, method, data, settings)
    bench.sweep(
        method=[method], dataset=data, guidance=question.guidance, samples=SAMPLES[data],
        metric=list(METRICS[data]), extractor=[EXTRACTOR[data]], experiment=experiment,
        results=RESULTS, workers=1, steps="18" if method == "edm" else "1",
    )  # fmt: skip
    frame, _ = bench.load(experiment, RESULTS)
    own = frame[(frame["dataset"] == data) & (frame["method"] == method)]
    named = own.drop(columns="seed").rename(
        columns={"guidance": "g", "train_seed": "seed", "metric": "what"}
    )
    return named.assign(data=data, line=label)[["data", "line", "seed", "g", "what", "value"]]


def roughness(frame: pd.DataFrame) -> pd.DataFrame:
    """Root mean square of second differences over neighbouring scales, in % of the mean."""
    rows = []
    for key, group in frame.groupby(["data", "line", "seed", "what"]):
        values = group.sort_values("g")["value"].to_numpy(dtype=float)
        if key[3] != DISPLACEMENT and len(values) > 2:
            rough = 100 * np.sqrt(np.mean(np.diff(values, 2) ** 2)) / abs(values.mean())
            own = dict(zip(("data", "line", "seed"), key[:3], strict=True))
            rows.append({**own, "what": f"roughness of {key[3]}, %", "g": np.nan, "value": rough})
    return pd.DataFrame(rows)


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
            place = f"findings-{name}-{label.replace(' ', '-')}"
            parts.append(curves(place, "igct", label, data, question, settings))
        for method in question.beside:
            parts.append(curves("findings", method, method, data, question, {}))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["seed"].isin(SEEDS)]
    if question.guidance == "1":
        frame = frame[frame["what"] != DISPLACEMENT]
    if "edm" in question.beside:
        frame = pd.concat([frame, equal_scales(frame)], ignore_index=True)
    if question.rough:
        frame = pd.concat([frame, roughness(frame)], ignore_index=True)
    table = over_seeds(frame, ["data", "what", "line", "g"])
    write(name, table, curves_of(table))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in QUESTIONS:
        sys.exit(f"usage: python -m benchmarks.findings.variants {{{','.join(QUESTIONS)}}}")
    main(sys.argv[1])
