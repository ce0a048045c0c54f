"""Synthetic rows of a sweep over guidance rules: their values, errors and replicates are made up.

`python -m tests.bench.report.rules_factory FOLDER` writes them as an experiment to report.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bench.experiment.rows import Row, Value, write_row
from tests.bench.report.factory import density, images, points, row, value

RULES = (
    *("adg", "apg", "autoguidance", "cads", "cfg-zero", "cosine", "fbg", "fdg", "icg", "interval"),
    *("interval+apg", "limit", "mambo", "rescale", "threshold"),
)
SCALES = tuple(float(g) for g in range(1, 14))
GROUPS = 20


def estimates(
    metric: str, number: float, se: float, noise: np.ndarray, own: np.ndarray, **changes: object
) -> Value:
    """A value with 20 replicates, most of whose error is common to lines that share `noise`."""
    mixed = 0.8 * noise + 0.6 * own
    mixed = (mixed - mixed.mean()) / mixed.std()
    left = number + se * mixed / np.sqrt(GROUPS - 1)
    share = changes.pop("share", False)
    kind = "binomial, Wilson interval" if share else "jackknife, 20 groups"
    low, high = (max(0.0, number - 2 * se), min(1.0, number + 2 * se)) if share else (None, None)
    return value(
        metric, number, se=se, se_method=kind, low=low, high=high,
        replicates=tuple(left.tolist()), **changes,
    )  # fmt: skip


def quality(strength: float, w: float) -> tuple[float, float, float]:
    """FD, precision and recall of a line at w = g - 1; `strength` in [0, 1] makes it hold."""
    best = 1.0 + 4 * strength
    fd = 6.0 - 2.5 * strength + (3.5 - 3 * strength) * ((w - best) / 3) ** 2 * (w > best)
    fd += 2.0 * (1 - w / best) ** 2 * (w < best)
    precision = 0.72 + 0.2 * w / (w + 1.5) - 0.035 * (1 - strength) * max(0.0, w - 3)
    recall = 0.86 / (1 + (0.35 - 0.3 * strength) * w)
    return fd, float(np.clip(precision, 0, 1)), float(np.clip(recall, 0, 1))


def cell(
    dataset: str, method: str, g: float, strength: float, rng: np.random.Generator,
    shared: dict[str, np.ndarray], **changes: object,
) -> Row:  # fmt: skip
    """One row of digits or of the toy in the plane or on the line."""
    fd, precision, recall = quality(strength, g - 1)
    toy = dataset != "digits"
    fd /= 100 if toy else 1
    ex = {"extractor": "identity", "extractor_hash": "1" * 64} if toy else {}

    def some(metric: str, number: float, se: float, **more: object) -> Value:
        noise = shared.setdefault(metric, np.random.default_rng(len(metric)).normal(size=GROUPS))
        se = max(se, 1e-4)
        number += 0.5 * se * float(rng.normal())
        if more.get("share"):
            number = float(np.clip(number, 0, 1))
        return estimates(metric, number, se, noise, rng.normal(size=GROUPS), **more)

    values = [
        some("fd", fd, 0.05 * fd, **ex),
        some("precision", precision, 0.012, share=True, **ex),
        some("recall", recall, 0.012, share=True, **ex),
    ]
    shift = (1 - strength) * 0.22 * (g - 1)
    if toy:
        values += [
            some("w1", 0.01 + 0.4 * shift, 0.004),
            some("shift", shift, 0.01, label="Shift of the modes", direction="none"),
            some("within3", 1 / (1 + shift), 0.01, share=True, direction="higher",
                 label="Share within 3 sigma"),
        ]  # fmt: skip
        shown = density(shift) if dataset == "modes1d" else points(shift)
    else:
        values += [
            some("saturation", 0.45 + 0.1 * shift, 0.004, label="Saturation", direction="none"),
            some("class_accuracy", min(1.0, 0.9 + 0.01 * g), 0.01, share=True,
                 direction="higher", label="Class accuracy"),
        ]  # fmt: skip
        shown = images(3 * shift, count=10)
    return row(dataset, method, g, *values, preview=shown, **changes)


def sweep(
    dataset: str,
    rules: Sequence[str] = RULES,
    scales: Iterable[float] = SCALES,
    seeds: Sequence[int] = (0,),
    methods: Sequence[str] = ("edm", "igct", "guided-cd", "ct", "mg", "meanflow"),
) -> list[Row]:
    """Rows of methods, and of `rules` for edm (and oracle) as a sweep would leave them."""
    rows = []
    rng = np.random.default_rng(7)
    scales = tuple(scales)
    for seed in seeds:
        shared: dict[str, np.ndarray] = {}
        strengths = {"edm": 0.1, "oracle": 0.2, "igct": 0.75, "guided-cd": 0.3, "mg": 0.5}
        for method in methods:
            for g in scales:
                if method == "ct" and g > 1:
                    rows.append(row(dataset, "ct", g, status="skip", reason="no g", seed=seed))
                    continue
                strength = strengths.get(method, 0.6)
                rows.append(cell(dataset, method, g, strength, rng, shared, seed=seed))
        for method in [m for m in ("edm", "oracle") if m in methods]:
            for i, rule in enumerate(rules):
                strength = (i + 0.5) / len(rules)
                for g in scales:
                    if g == 1.0:
                        continue
                    extra = {"nfe": 36 if i % 3 else 24 + i, "seconds_per_image": 0.018 + 0.001 * i}
                    extra |= {"key": f"{dataset}/{method}/{rule}/{g}/{seed}", "rule": rule}
                    made = cell(
                        dataset, method, g, strength, rng, shared, seed=seed, **extra,
                        knobs={f"{rule}.eta": 0.5}, knobs_from="default",
                    )  # fmt: skip
                    rows.append(made)
    if dataset == "digits":
        rows.append(row("digits", "real", 1.0, value("fd", 2.1), preview=images(3)))
    return rows


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    toys = ("oracle", "edm", "igct", "ct")
    made = [*sweep("digits"), *sweep("modes1d", methods=toys), *sweep("modes2d", methods=toys[:2])]
    for i, found in enumerate(made):
        write_row(folder / "cells", found.model_copy(update={"key": f"{i:024d}"}))
