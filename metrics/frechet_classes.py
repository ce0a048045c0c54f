"""Frechet distance within classes: whether images of a class resemble its real images."""

from __future__ import annotations

import numpy as np

from metrics.about import About
from metrics.base import Array, Estimate, Metric, Moments, SampleSet, Unsuitable, look_up
from metrics.errors import jackknife_estimate, jackknife_groups
from metrics.frechet import Features, frechet_distance, frechet_without_groups
from metrics.moments import moments_of
from metrics.registry import register

SMALLEST_CLASS = 4


def class_frechet(real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
    """Mean over the generated classes of the plug-in distance to real samples of that class.

    Its bias is not corrected: a class often has fewer samples than dimensions, where corrections
    fail. So the value for equal distributions is high: compare values at equal n only. The error
    is the jackknife's over generated groups that hold a share of every class. The cost is that of
    `fd` times the number of classes, less if n < D.

    Unsuitable if a generated class has fewer than 4 samples in either set.
    """
    ours = look_up(fake.features, extractor, "features")
    theirs = look_up(real.features, extractor, "features")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"real features have {theirs.shape[1]} dimensions, generated ones {ours.shape[1]}"
        )
    groups = jackknife_groups(fake.labels)
    classes = np.unique(fake.labels)
    values = np.empty(len(classes))
    left: Array = np.empty((len(classes), int(groups.max()) + 1))
    for place, label in enumerate(classes):
        member = fake.labels == label
        kept = _class(theirs[real.labels == label], int(label), "real")
        part = _class(ours[member], int(label), "generated")
        values[place] = frechet_distance(
            kept[1], part[1], real_features=kept[0], fake_features=part[0]
        )
        # Leaving out a group without samples of this class changes nothing.
        present, dealt = np.unique(groups[member], return_inverse=True)
        left[place] = values[place]
        left[place, present] = frechet_without_groups(
            kept[1], part[1], part[0], dealt, kept_features=kept[0]
        )
    return jackknife_estimate(float(values.mean()), left.mean(axis=0), groups)


def _class(features: Features, label: int, side: str) -> tuple[Features, Moments]:
    if len(features) < SMALLEST_CLASS:
        raise Unsuitable(
            f"class {label} has {len(features)} {side} samples; "
            f"a distance within classes needs at least {SMALLEST_CLASS}"
        )
    return features, moments_of(features)


@register
class ClassFrechet(Metric):
    """Mean over classes of the Frechet distance to real samples of the same class.

    Unlike `fd` it detects images of the wrong class. Its bias is that of the samples per class.
    """

    name = "class_fd"
    label = "FD within classes"
    summary = "mean over classes of the Frechet distance to real samples of the same class"
    about = About(order=130, low=0.0, ratios=True, plug_in=True, minimum=True)
    direction = "lower"
    needs = frozenset({"features"})
    of_classes = True
    default = False
    minimum_n = SMALLEST_CLASS

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`class_frechet` in squared feature units."""
        return class_frechet(real, fake, extractor)
