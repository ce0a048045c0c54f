"""Synthetic rows with known numbers: a 1-D toy with four methods, and digits with floor."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from bench.experiment.rows import Density, Images, Points, Row, Value

NO_GUIDANCE = "ct takes no guidance"
TOO_HIGH = "igct was trained up to g = 15"
SCALES = (1.0, 2.0, 4.0, 7.0, 10.0, 13.0)
STEPS = {"oracle": 18, "edm": 18, "ct": 1, "igct": 1, "real": 0}


def value(metric: str, number: float, **changes: Any) -> Value:
    """One value; metrics of features carry the extractor of the digits."""
    known: dict[str, dict[str, Any]] = {
        "fd": {"label": "FD", "direction": "lower"},
        "precision": {"label": "Precision", "direction": "higher"},
        "recall": {"label": "Recall", "direction": "higher"},
        "contrast": {"label": "RMS contrast", "direction": "none"},
        "w1": {"label": "W1 to the exact distribution (data units)", "direction": "lower"},
    }
    features = metric in ("fd", "precision", "recall")
    plain = {"label": metric, "direction": "none"}
    defaults = {
        "metric": metric,
        "version": 1,
        "extractor": "classifier" if features else "",
        "extractor_hash": "e" * 64 if features else "",
        "n": 300,
        "value": number,
    }
    return Value(**{**defaults, **known.get(metric, plain), **changes})


def row(dataset: str, method: str, guidance: float, *values: Value, **changes: Any) -> Row:
    """One row with everything that tests do not care about filled in."""
    changes.setdefault("train_seed", 0)
    changes.setdefault("seed", 0)
    changes.setdefault("steps", STEPS.get(method, 4))
    run = f"{dataset}-{method}-s{changes['train_seed']}"
    trained = method not in ("oracle", "real")
    defaults = {
        "status": "ok",
        "experiment": "demo",
        "dataset": dataset,
        "data_hash": "d" * 64,
        "method": method,
        "run": run,
        "checkpoint": f"{run}-{'c' * 40}" if trained else "",
        "guidance": guidance,
        "nfe": changes["steps"] * (2 if method == "edm" and guidance != 1.0 else 1),
        "n": 300,
        "reference": "test",
        "reference_hash": "f" * 64,
        "reference_n": 897,
        "seconds_per_image": 0.0 if method == "real" else 0.001 * changes["steps"],
        "values": values,
        "created": "2025-01-02T03:04:05+00:00",
        "provenance": {"git": "0123abc", "torch": "2.6.0", "python": "3.11"},
    }
    full = {**defaults, **changes}
    cell = (full["run"], full["checkpoint"], guidance, full["steps"], full["seed"], full["n"])
    full.setdefault("key", "/".join(str(part) for part in cell))
    return Row(**full)


def density(shift: float, std: float = 0.2) -> Density:
    """2,000 samples of two classes whose modes have moved outwards by `shift`."""
    rng = np.random.default_rng(0)
    edges = np.linspace(-5, 5, 101)
    counts = [
        np.histogram(sign * (2 + shift) + std * rng.standard_normal(1000), edges)[0]
        for sign in (1, -1)
    ]
    return Density(
        edges=tuple(edges.tolist()),
        counts=tuple(tuple(c.tolist()) for c in counts),
        means=((2.0,), (-2.0,)),
        std=0.2,
    )


def points(shift: float) -> Points:
    """400 samples of four classes in the plane."""
    rng = np.random.default_rng(0)
    modes = np.array([(2.0, 2.0), (-2.0, 2.0), (-2.0, -2.0), (2.0, -2.0)])
    labels = np.arange(400) % 4
    xy = modes[labels] * (1 + shift / 2) + 0.2 * rng.standard_normal((400, 2))
    return Points(
        xy=tuple((float(x), float(y)) for x, y in xy),
        labels=tuple(labels.tolist()),
        means=tuple(((float(x), float(y)),) for x, y in modes),
        std=0.2,
    )


def images(brightness: float, count: int = 10, names: tuple[str, ...] = ()) -> Images:
    """A strip of 8 x 8 tiles; the class is drawn as that many dots."""
    strip = np.zeros((8, 8 * count), dtype=np.uint8)
    for i in range(count):
        for dot in range(i % 10 + 1):
            y, x = 1 + dot // 3 * 2, 8 * i + 1 + dot % 3 * 2
            strip[y : y + 1, x : x + 1] = int(min(255, 120 + 10 * brightness))
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, format="PNG")
    return Images(
        png=base64.b64encode(buffer.getvalue()).decode(),
        labels=tuple(i % 10 for i in range(count)),
        class_names=names or tuple(str(k) for k in range(10)),
    )


def toy() -> list[Row]:
    """modes1d: the oracle overshoots, edm does over two training seeds, ct cannot, igct holds."""
    rows = []
    for i, g in enumerate(SCALES):
        exact = density(0.1 * i)
        rows.append(row("modes1d", "oracle", g, value("w1", 0.1 * i), preview=exact))
        for seed in (0, 1):
            number = 0.01 + 0.15 * i * (1 + seed)
            shown = density(0.15 * i, 0.2 + 0.03 * i)
            rows.append(
                row("modes1d", "edm", g, value("w1", number), train_seed=seed, preview=shown)
            )
        if g == 1.0:
            rows.append(row("modes1d", "ct", g, value("w1", 0.022), preview=density(0.0)))
        else:
            rows.append(row("modes1d", "ct", g, status="skip", reason=NO_GUIDANCE, nfe=0))
        rows.append(row("modes1d", "igct", g, value("w1", 0.016), preview=density(0.01)))
    rows.append(row("modes1d", "igct", 16.0, status="skip", reason=TOO_HIGH, nfe=0))
    rows.append(row("modes1d", "oracle", 16.0, value("w1", 0.6), preview=density(0.6)))
    return rows


def digits(names: tuple[str, ...] = ()) -> list[Row]:
    """digits: edm falls with guidance and diverges at 16, igct holds, ct is at g = 1 only."""

    def measured(fd: float, precision: float, recall: float, contrast: float) -> tuple[Value, ...]:
        return (
            value("fd", fd),
            value("precision", precision),
            value("recall", recall),
            value("contrast", contrast),
        )

    rows = []
    for i, g in enumerate(SCALES):
        edm = measured(3.0 * 2.4**i, 0.75 - 0.1 * i, max(0.0, 0.93 - 0.2 * i), 0.3 + 0.02 * i)
        igct = measured(6.0 - 0.2 * i, 0.77 + 0.006 * i, 0.83 - 0.008 * i, 0.3)
        rows.append(row("digits", "edm", g, *edm, preview=images(i, names=names)))
        rows.append(row("digits", "igct", g, *igct, preview=images(2, names=names)))
        if g == 1.0:
            ct = measured(15.4, 0.66, 1.0, 0.31)
            rows.append(row("digits", "ct", g, *ct, preview=images(1, names=names)))
        else:
            rows.append(row("digits", "ct", g, status="skip", reason=NO_GUIDANCE, nfe=0))
    rows.append(row("digits", "igct", 16.0, status="skip", reason=TOO_HIGH, nfe=0))
    rows.append(row("digits", "edm", 16.0, status="diverged", reason="NaN at step 3 of 18"))
    floor = measured(3.4, 0.91, 0.92, 0.3)
    rows.append(row("digits", "real", 1.0, *floor, preview=images(3, names=names)))
    return rows


def demo() -> list[Row]:
    """Both data sets."""
    return toy() + digits()
