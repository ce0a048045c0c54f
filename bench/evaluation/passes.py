"""The pass over a set of samples: features, whose form is checked, and images if needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metrics import Accumulator, plan_needs
from metrics.base import ExactMixture, Extracted, Extractor, Metric, Need, SampleSet
from metrics.images import ImageMetric, Images, with_images


class Pass(Accumulator):
    """An accumulator that checks what extractors return, and keeps the images if asked to."""

    def __init__(
        self, extractors: Mapping[str, Extractor], needs: Iterable[Need], *, images: bool = False
    ) -> None:
        checked = {name: _Checked(extractor) for name, extractor in extractors.items()}
        super().__init__(checked, needs)
        self._kept: list[Images] | None = [] if images else None

    def update(self, samples: Tensor, labels: Tensor | npt.NDArray[np.integer]) -> None:
        """Add a batch, as `Accumulator.update` does."""
        super().update(samples, labels)
        if self._kept is not None and len(samples):
            self._kept.append(samples.cpu().numpy().copy())

    def finish(self, exact: ExactMixture | None = None) -> SampleSet:
        """The collected statistics, as `Accumulator.finish` gives them."""
        found, kept = super().finish(exact), self._kept
        if kept is None or found.pixels is None:
            return found

        def joined() -> Images:
            whole = np.concatenate(kept)
            kept.clear()
            return whole

        return replace(found, pixels=with_images(found.pixels, joined))


def pass_for(extractors: Mapping[str, Extractor], metrics: Iterable[Metric]) -> Pass:
    """A pass that collects what the metrics need."""
    metrics = tuple(metrics)
    return Pass(extractors, plan_needs(metrics), images=any(map(is_of_images, metrics)))


def is_of_images(metric: Metric) -> bool:
    """Whether a metric is computed from the images themselves."""
    return isinstance(metric, ImageMetric)


def extract(extractor: Extractor, samples: Tensor) -> Extracted:
    """The features of a batch; ValueError with what is expected if they are not as documented."""
    found, n = extractor(samples), len(samples)
    name, wanted = f"extractor {extractor.name!r}", f"({n}, {extractor.dim})"
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(
            f"{name} returned {_kind(found)}, not Extracted(features, logits) of metrics.base"
        )
    features, logits = found
    if not isinstance(features, Tensor) or features.dtype != torch.float32:
        raise ValueError(f"{name} returned features {_kind(features)}, not float32 {wanted}")
    if tuple(features.shape) != (n, extractor.dim):
        raise ValueError(
            f"{name} returned features {tuple(features.shape)} for {n} samples, not {wanted}"
        )
    if logits is None and extractor.has_logits:
        raise ValueError(f"{name} returned no logits, and has_logits is True")
    if logits is not None and (not isinstance(logits, Tensor) or logits.shape[:-1] != (n,)):
        raise ValueError(f"{name} returned logits {_kind(logits)}, not ({n}, number of classes)")
    return Extracted(features, logits)


def _kind(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
    return f"a {type(found).__name__}"


class _Checked(Extractor):
    """An extractor whose output is checked."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self.name, self.dim, self.hash = extractor.name, extractor.dim, extractor.hash
        self.has_logits, self.label_logits = extractor.has_logits, extractor.label_logits

    def __call__(self, samples: Tensor) -> Extracted:
        return extract(self._extractor, samples)
