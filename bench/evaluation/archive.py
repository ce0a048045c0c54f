"""Sample sets as arrays under names, as a file holds them."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np

from metrics.base import ExactMixture, Moments, PixelStats, SampleSet
from metrics.memo import Arrays


def to_arrays(samples: SampleSet) -> Arrays:
    """Everything in a set; what is no array goes as JSON into the bytes of `about`."""
    arrays: Arrays = {"labels": samples.labels}
    about: dict[str, Any] = {"n": samples.n, "moments": {}}
    arrays |= {f"features/{name}": value for name, value in samples.features.items()}
    arrays |= {f"logits/{name}": value for name, value in samples.logits.items()}
    for name, moments in samples.moments.items():
        about["moments"][name] = moments.n
        arrays |= {f"mean/{name}": moments.mean, f"cov/{name}": moments.cov}
    if samples.pixels is not None:
        arrays |= {f"pixels/{f.name}": getattr(samples.pixels, f.name) for f in fields(PixelStats)}
    if samples.exact is not None:
        about["std"] = samples.exact.std
        arrays |= {f"exact/{k:06}": modes for k, modes in enumerate(samples.exact.means)}
    return arrays | {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}


def from_arrays(arrays: Arrays) -> SampleSet:
    """The set that `to_arrays` was given."""
    about = json.loads(arrays["about"].tobytes())

    def under(kind: str) -> Arrays:
        start = f"{kind}/"
        return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}

    mean, cov, modes, pixels = under("mean"), under("cov"), under("exact"), under("pixels")
    return SampleSet(
        n=about["n"],
        labels=arrays["labels"],
        features=under("features"),
        logits=under("logits"),
        moments={name: Moments(n, mean[name], cov[name]) for name, n in about["moments"].items()},
        pixels=PixelStats(**pixels) if pixels else None,
        exact=(
            ExactMixture(tuple(modes[k] for k in sorted(modes)), about["std"])
            if "std" in about
            else None
        ),
    )
