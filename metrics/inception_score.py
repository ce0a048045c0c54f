"""Inception score: whether images are recognisable and diverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, xlogy

from metrics.about import About
from metrics.base import Array, Estimate, Metric, SampleSet, look_up
from metrics.errors import Groups, jackknife_estimate, jackknife_groups
from metrics.registry import register

SEED = 2020
Split = npt.NDArray[np.int64]


def shuffled_splits(n: int, splits: int = 10, seed: int = SEED) -> list[Split]:
    """Indices of `splits` equal parts in the random order of torch-fidelity."""
    # The legacy generator is part of the protocol: another one would draw another order.
    order = np.random.RandomState(seed).permutation(n).astype(np.int64)
    return [order[i * n // splits : (i + 1) * n // splits] for i in range(splits)]


def ordered_splits(n: int, size: int = 5000) -> list[Split]:
    """Indices of parts of `size` in the order of the samples, as in ADM's evaluator."""
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


class InceptionScores(NamedTuple):
    """Score in [1, K] and its values without each group (G,)."""

    value: float
    replicates: Array


def inception_score(
    logits: npt.NDArray[np.floating], splits: Sequence[Split], groups: Groups
) -> InceptionScores:
    """Mean over splits of exp(E KL(p(y|x) || p(y))), p(y) the mean of a split, in float64.

    Salimans et al. (2016), section 4, from `logits` (n, K). The score grows with the samples of a
    split: perfect and balanced images of K classes reach about K exp(-(K - 1) / (2 size)), so
    compare values of equal split sizes only. Images sorted by class need shuffled splits. The
    replicates leave out the members of a group in each split.

    ValueError if a split is empty, even without a group only, or logits are not finite.
    """
    if logits.ndim != 2 or groups.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits (n, K) and groups (n,), got {logits.shape}")
    count = int(groups.max()) + 1
    scores = np.zeros(count + 1)
    for split in splits:
        rows = split[np.argsort(groups[split], kind="stable")]
        logs: Array = log_softmax(logits[rows].astype(np.float64), axis=1)
        shares = np.exp(logs)
        sizes = np.bincount(groups[rows], minlength=count)
        if len(rows) == 0 or sizes.max() == len(rows):
            raise ValueError(f"splits of {len(rows)} images are too small to leave a group out")
        # First over all images, then without each group, whose part is subtracted.
        counts = len(rows) - np.concatenate([[0], sizes])
        classes = np.zeros((count + 1, logits.shape[1]))
        certainty = np.zeros(count + 1)
        edges = np.concatenate([[0], np.cumsum(sizes)])
        for group in range(count):
            part = slice(edges[group], edges[group + 1])
            classes[group + 1] = shares[part].sum(axis=0)
            certainty[group + 1] = (shares[part] * logs[part]).sum()
        classes[0], certainty[0] = shares.sum(axis=0), (shares * logs).sum()
        classes[1:] = np.maximum(classes[0] - classes[1:], 0.0)
        certainty[1:] = certainty[0] - certainty[1:]
        marginal = classes / counts[:, None]
        scores += np.exp(certainty / counts - xlogy(marginal, marginal).sum(axis=1))
    scores /= len(splits)
    return InceptionScores(float(scores[0]), scores[1:])


class _Score(Metric):
    """An inception score; the real set is not used."""

    about = About(low=1.0, error_of="generated")
    direction = "higher"
    needs = frozenset({"logits"})
    real_needs = frozenset()
    domain = "image"
    default = False

    def _splits(self, n: int) -> list[Split]:
        raise NotImplementedError

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """`inception_score` of the generated set with its jackknife error."""
        groups = jackknife_groups(fake.labels)
        logits = look_up(fake.logits, extractor, "logits")
        found = inception_score(logits, self._splits(fake.n), groups)
        return jackknife_estimate(found.value, found.replicates, groups)


@register
class InceptionScore10(_Score):
    """Mean of 10 shuffled splits (torch-fidelity); the spread of the splits is not its error."""

    name = "is_10"
    label = "IS (10 splits)"
    summary = "inception score, mean of 10 shuffled splits"
    minimum_n = 40

    def _splits(self, n: int) -> list[Split]:
        return shuffled_splits(n)


@register
class InceptionScore5000(_Score):
    """Mean of splits of 5000 in order (ADM's evaluator); one split if there are fewer images."""

    name = "is_5000"
    label = "IS (splits of 5000)"
    summary = "inception score, mean of splits of 5000 in order"
    minimum_n = 3

    def _splits(self, n: int) -> list[Split]:
        return ordered_splits(n)
