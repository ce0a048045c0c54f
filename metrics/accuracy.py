"""Agreement of generated images with the requested class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metrics.about import About
from metrics.base import Domain, Estimate, ExactMixture, Extractor, Metric, SampleSet, look_up
from metrics.errors import jackknife_groups, share_estimate
from metrics.registry import register


def recognised(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the largest of each row of `logits` (n, K) is at its label (n,) in [0, K)."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not match")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for logits of {logits.shape[1]} classes"
        )
    hits: npt.NDArray[np.bool_] = logits.argmax(axis=1) == labels
    return hits


@register
class ClassAccuracy(Metric):
    """Share of generated images that a classifier assigns to the requested class, in [0, 1]."""

    name = "class_accuracy"
    label = "Class accuracy"
    summary = "share of generated images recognised as the requested class"
    about = About(order=80, standing="headline", low=0.0, high=1.0, error_of="generated")
    direction = "higher"
    needs = frozenset({"logits"})
    real_needs = frozenset()
    of_classes = True
    minimum_n = 1

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """Also refuses an extractor whose logits are not over the classes of the data set."""
        reason = super().supports(domain=domain, extractor=extractor, exact=exact)
        if reason is None and extractor is not None and not extractor.label_logits:
            return f"the logits of extractor {extractor.name} are not over the data's classes"
        return reason

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Top-1 accuracy of the generated set; the real set is not used."""
        hits = recognised(look_up(fake.logits, extractor, "logits"), fake.labels)
        return share_estimate(hits, jackknife_groups(fake.labels))
