"""Whether the jitter of iGCT's curves between neighbouring scales comes from its embedding of w.

The network gets sin and cos of guidance_scale * w * f for frequencies f from 1 to 1e-4. With the
published factor of 1000 most of them turn many times between neighbouring scales.

The jitter of a curve is the root mean square of the second differences of log(metric) over
g = 1..14. All scales share their noise, so the noise of sampling mostly cancels in it. For
comparison: what it is if nothing depends on g and every scale has other samples, from as many
sampling seeds at g = 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt

from bench.experiment.ranges import parse_range
from benchmarks.findings.common import over_seeds, write
from benchmarks.findings.variants import METRICS, curves

DATA = {"modes1d": (1.0, 30.0, 1000.0), "digits": (1.0, 1000.0)}
SCALES, DRAWS = "1..14", "0..13"
NOISE = "other noise at every scale"


def jitter(values: pd.Series) -> float:
    """The root mean square of the second differences of the logarithm of values (k,), in order."""
    return float(np.sqrt(np.mean(np.diff(np.log(values.to_numpy(dtype=float)), 2) ** 2)))


def jitters(data: str, curve: pd.DataFrame, noise: pd.DataFrame) -> list[dict[str, object]]:
    """The jitter of every variant and training seed, that of noise, and ratios to factor 1."""
    lines = {**dict(list(curve.groupby("line", sort=False))), NOISE: noise}
    by = {
        (line, seed): jitter(own.sort_values("draw" if line == NOISE else "g")["value"])
        for line, group in lines.items()
        for seed, own in group.groupby("seed")
    }
    rows: list[dict[str, object]] = [
        {"data": data, "line": line, "what": "jitter", "seed": seed, "value": value}
        for (line, seed), value in by.items()
    ]
    for (line, seed), value in by.items():
        if line != "factor 1":
            ratio = np.log(value / by["factor 1", seed])
            rows.append({"data": data, "line": line, "what": "log of the ratio to factor 1",
                         "seed": seed, "value": ratio})  # fmt: skip
    return rows


def main() -> None:
    """Write the table and the figure."""
    points, rows = [], []
    for data, factors in DATA.items():
        metric = METRICS[data][0]
        parts = [
            curves("embedding", f"factor {factor:g}", data, {"guidance_scale": factor}, SCALES)
            for factor in factors
        ]
        noise = curves("embedding", NOISE, data, {}, "1", sampling=DRAWS)
        assert noise["draw"].nunique() == len(parse_range(DRAWS))
        curve, noise = (f[f["what"] == metric] for f in (pd.concat(parts), noise))
        points.append(curve)
        rows += jitters(data, curve, noise)
    curve = pd.concat(points)
    table = pd.concat([
        over_seeds(curve, ["data", "what", "line", "g"]),
        over_seeds(pd.DataFrame(rows), ["data", "what", "line"]),
    ])  # fmt: skip
    figure, axes = plt.subplots(len(DATA), 2, figsize=(9, 3.2 * len(DATA)), squeeze=False)
    for (left, right), data in zip(axes, DATA, strict=True):
        own = curve[curve["data"] == data]
        for place, (line, group) in enumerate(own.groupby("line", sort=False)):
            for seed, run in group.sort_values("g").groupby("seed"):
                left.plot(run["g"], run["value"], color=f"C{place}", lw=1.2, marker="o", ms=3,
                          label=line if seed == 0 else None)  # fmt: skip
        left.set(title=f"{data}: a curve per training seed", xlabel="guidance g", yscale="log",
                 ylabel=METRICS[data][0])  # fmt: skip
        left.legend(fontsize=8)
        found = pd.DataFrame([r for r in rows if r["data"] == data and r["what"] == "jitter"])
        mean = over_seeds(found, ["line"])
        right.scatter(found["value"], found["line"], s=14, color="grey", label="training seeds")
        half = np.nan_to_num((mean["high"] - mean["mean"]).to_numpy(dtype=float))
        right.errorbar(mean["mean"], mean["line"], xerr=half, fmt="o", capsize=2, label="mean, 95%")
        right.set(title=f"{data}: jitter", xlabel="rms second difference of the logarithm")
        right.set_xlim(left=0)
        right.invert_yaxis()
        right.legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    write("embedding", table, figure)


if __name__ == "__main__":
    main()
