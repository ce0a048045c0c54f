"""The built-in extractors and metrics, which importing this module registers."""

from metrics import (
    accuracy,
    cmmd,
    displacement,
    frechet,
    frechet_classes,
    frechet_unbiased,
    inception_score,
    kid,
    memorisation,
    mind,
    neighbours,
    saturation,
    strength,
    tilt,
    toy,
)
from metrics import extractors as _extractors
from metrics.accumulate import Accumulator, NonFiniteFeatures, plan_needs
from metrics.registry import EXTRACTORS, METRICS, find_extractor, find_metric

BUILT_IN = (
    *(accuracy, cmmd, displacement, frechet, frechet_classes, frechet_unbiased),
    *(inception_score, kid, memorisation, mind, neighbours, saturation, strength, tilt, toy),
    _extractors,
)
"""The modules that register metrics or extractors on import."""

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "Accumulator",
    "NonFiniteFeatures",
    "find_extractor",
    "find_metric",
    "plan_needs",
]
