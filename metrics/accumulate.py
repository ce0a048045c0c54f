"""The one pass over samples: every batch through every extractor once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metrics.base import ExactMixture, Extractor, Metric, Need, SampleSet
from metrics.moments import MomentAccumulator
from metrics.saturation import PixelAccumulator

NEEDS: frozenset[Need] = frozenset({"moments", "features", "logits", "pixels"})


class NonFiniteFeatures(ValueError):
    """Samples diverged: their features or logits hold NaN or infinity.

    `first` is the index of the first such sample.
    """

    def __init__(self, message: str, first: int) -> None:
        super().__init__(message)
        self.first = first


def plan_needs(metrics: Iterable[Metric | type[Metric]]) -> frozenset[Need]:
    """The statistics that the pass must keep for all of `metrics`."""
    return frozenset(need for metric in metrics for need in metric.needs)


class Accumulator:
    """Collects the statistics in `needs` from batches of samples, for each extractor.

    Features take n D floats and are kept only if a metric needs them; moments are streamed. The
    split into batches changes the result by rounding only.
    """

    def __init__(self, extractors: Mapping[str, Extractor], needs: Iterable[Need]) -> None:
        self._extractors = dict(extractors)
        self._needs = frozenset(needs)
        unknown = sorted(self._needs - NEEDS)
        if unknown:
            raise ValueError(f"unknown needs {unknown}; known are {', '.join(sorted(NEEDS))}")
        self._labels: list[npt.NDArray[np.int64]] = []
        self._pixels = PixelAccumulator()
        self._shape: tuple[int, ...] | None = None
        self._n = 0
        self._features: dict[str, list[npt.NDArray[np.float32]]] = {}
        self._logits: dict[str, list[npt.NDArray[np.float32]]] = {}
        self._moments: dict[str, MomentAccumulator] = {}
        for name, extractor in self._extractors.items():
            if "features" in self._needs:
                self._features[name] = []
            if "logits" in self._needs and extractor.has_logits:
                self._logits[name] = []
            if "moments" in self._needs:
                self._moments[name] = MomentAccumulator(extractor.dim)

    def update(self, samples: Tensor, labels: Tensor | npt.NDArray[np.integer]) -> None:
        """Add uint8 images (B, C, H, W) or float vectors (B, D) with integer labels (B,).

        ValueError if shapes do not match; NonFiniteFeatures, a ValueError, if an extractor returns
        NaN or infinity. Do not use the accumulator after an error.
        """
        labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        if labels.shape != tuple(samples.shape[:1]) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{len(samples)} samples need as many integer labels, got {labels.dtype} "
                f"{labels.shape}"
            )
        if self._shape not in (None, tuple(samples.shape[1:])):
            raise ValueError(
                f"samples of shape {tuple(samples.shape[1:])} after samples of {self._shape}"
            )
        if len(samples) == 0:
            return
        self._shape = tuple(samples.shape[1:])
        if "pixels" in self._needs:
            self._pixels.update(samples)
        for name, extractor in self._extractors.items():
            self._extract(name, extractor, samples)
        self._labels.append(labels.astype(np.int64))
        self._n += len(samples)

    def _extract(self, name: str, extractor: Extractor, samples: Tensor) -> None:
        extracted = extractor(samples)
        if extracted.features.shape != (len(samples), extractor.dim):
            raise ValueError(
                f"extractor {name!r} returned features {tuple(extracted.features.shape)} for "
                f"{len(samples)} samples, not ({len(samples)}, {extractor.dim})"
            )
        features = self._finite(extracted.features, f"features of extractor {name!r}")
        if name in self._moments:
            self._moments[name].update(features)
        if name in self._features:
            self._features[name].append(features)
        if name in self._logits:
            if extracted.logits is None:
                raise ValueError(f"extractor {name!r} has_logits but returned none")
            self._logits[name].append(
                self._finite(extracted.logits, f"logits of extractor {name!r}")
            )

    def _finite(self, values: Tensor, what: str) -> npt.NDArray[np.float32]:
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        if not bool(finite.all()):
            first = self._n + int((~finite).nonzero()[0, 0])
            raise NonFiniteFeatures(
                f"{what} hold NaN or infinity for {int((~finite).sum())} of {len(values)} samples "
                f"of a batch, first for sample {first}",
                first,
            )
        # A copy, since an extractor may return the caller's own memory.
        array: npt.NDArray[np.float32] = values.detach().cpu().numpy().astype(np.float32, copy=True)
        return array

    def finish(self, exact: ExactMixture | None = None) -> SampleSet:
        """The collected statistics as read-only arrays; `exact` is the data's density if known.

        ValueError for no samples, or a single one if moments are needed.
        """
        if self._n == 0:
            raise ValueError("there are no samples")
        return SampleSet(
            n=self._n,
            labels=_joined(self._labels),
            features={name: _joined(parts) for name, parts in self._features.items()},
            logits={name: _joined(parts) for name, parts in self._logits.items()},
            moments={name: moments.finish() for name, moments in self._moments.items()},
            pixels=self._pixels.finish() if "pixels" in self._needs else None,
            exact=exact,
        )


S = TypeVar("S", np.float32, np.int64)


def _joined(parts: list[npt.NDArray[S]]) -> npt.NDArray[S]:
    joined = np.concatenate(parts)
    joined.setflags(write=False)
    return joined
