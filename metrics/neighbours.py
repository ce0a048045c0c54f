"""Precision, recall, density and coverage, from balls to the k-th nearest neighbour."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metrics.about import About
from metrics.balls import CHUNK, STRIP, ball_radii, memberships
from metrics.base import Array, Estimate, Metric, SampleSet, look_up
from metrics.errors import Groups, jackknife_estimate, jackknife_groups, share_estimate
from metrics.memo import kept, only, remember
from metrics.registry import register

Features = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Score = Literal["precision", "recall", "density", "coverage"]


class NeighbourScores(NamedTuple):
    """Shares in [0, 1]; `density` is in [0, n_real / k], 1 on average for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Neighbourhoods:
    """Which of n real and m generated samples lie in balls to the k-th neighbour of the other set.

    `balls` (m,) counts the real balls that hold each generated sample; `covered` (n,) marks the
    real balls that hold a generated sample, `recalled` (n,) the real samples in a generated ball.
    """

    k: int
    balls: npt.NDArray[np.int64]
    covered: Mask
    recalled: Mask

    @property
    def scores(self) -> NeighbourScores:
        """Precision and recall: Kynkaanniemi et al. (2019), eq. 1 and 2.

        Density and coverage: Naeem et al. (2020), eq. 6 and 7.
        """
        return NeighbourScores(
            precision=float((self.balls > 0).mean()),
            recall=float(self.recalled.mean()),
            density=int(self.balls.sum()) / (self.k * len(self.balls)),
            coverage=float(self.covered.mean()),
        )

    def precision(self, fake_groups: Groups) -> Estimate:
        """Precision with its binomial error; replicates leave out groups (m,) of fake samples."""
        return share_estimate(self.balls > 0, fake_groups)

    def recall(self, real_groups: Groups) -> Estimate:
        """Recall with its binomial error, given the generated balls.

        Its trials are the real samples: replicates leave out groups (n,) of them.
        """
        return share_estimate(self.recalled, real_groups)

    def density(self, fake_groups: Groups) -> Estimate:
        """Density with its jackknife error over groups (m,) of generated samples.

        The real balls are given, so a replicate is a mean over the remaining samples.
        """
        left = len(self.balls) - np.bincount(fake_groups)
        sums = self.balls.sum() - np.bincount(fake_groups, weights=self.balls)
        return jackknife_estimate(self.scores.density, sums / left / self.k, fake_groups)

    def coverage(self, real_groups: Groups) -> Estimate:
        """Coverage with its binomial error, given the generated samples.

        Its trials are the real balls: replicates leave out groups (n,) of them.
        """
        return share_estimate(self.covered, real_groups)


@remember(8)
def neighbourhoods(
    real: Features,
    fake: Features,
    k: int = 3,
    closed: bool = True,
    real_radii: Array | None = None,
    device: str = "cpu",
    block: tuple[int, int] = (STRIP, CHUNK),
) -> Neighbourhoods:
    """Find which samples of features (n, D) and (m, D) lie in balls of the other set.

    A ball reaches the k-th other sample of its set. A sample on its edge is inside if `closed`
    (the papers; torch-fidelity), else outside (the prdc package; dgm-eval): copies of real images
    lie on edges. Every comparison is decided as if each squared distance were summed directly in
    float64, in one fixed order. `device` and `block` change time and memory, never the result;
    `block` is the largest number of rows and columns of pairs held at once (multiples of 32,
    rows <= columns).

    `real_radii` (n,) are kept `squared_radii` of the real set, which save a quarter of the time.
    ValueError if a set has at most k samples, holds NaN or infinity, or shapes do not match.
    """
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:]:
        raise ValueError(f"features of shapes {real.shape} and {fake.shape} do not compare")
    if real_radii is None:
        real_radii = squared_radii(real, k, device, block)
    elif real_radii.shape != (len(real),):
        raise ValueError(f"{len(real)} real samples need as many radii, got {real_radii.shape}")
    elif real_radii.dtype != np.float64 or not (real_radii >= 0).all():
        raise ValueError("squared radii must be float64 and not negative")
    found = memberships(
        _tensor(real, device),
        _tensor(fake, device),
        _tensor(real_radii, device),
        _tensor(squared_radii(fake, k, device, block), device),
        closed,
        block,
    )
    return Neighbourhoods(k, *(part.cpu().numpy() for part in found))


@remember(8)
@kept("radii", only)
def squared_radii(
    x: Features, k: int, device: str = "cpu", block: tuple[int, int] = (STRIP, CHUNK)
) -> Array:
    """Squared distance (n,) of each sample (n, D) to its k-th nearest other sample, in float64.

    The array is read-only; for a set with a store (`keep_in`) it may come from another process.
    """
    # A copy owns its data, so that results computed from it can be remembered.
    radii: Array = ball_radii(_tensor(x, device), k, block).cpu().numpy().copy()
    radii.setflags(write=False)
    return radii


def _tensor(x: npt.NDArray[Any], device: str) -> Tensor:
    with warnings.catch_warnings():
        # The tensor is never written to.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(x).to(device)


class _Neighbours(Metric):
    """One of the four scores; scores with equal k and tie rule share one computation."""

    score: ClassVar[Score]
    k: ClassVar[int]
    closed: ClassVar[bool]
    direction = "higher"
    needs = frozenset({"features"})

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Kynkaanniemi et al. (2019), eq. 1 and 2; Naeem et al. (2020), eq. 6 and 7."""
        found = neighbourhoods(
            look_up(real.features, extractor, "features"),
            look_up(fake.features, extractor, "features"),
            self.k,
            self.closed,
        )
        trials = real if self.about.error_of == "real" else fake
        estimate: Estimate = getattr(found, self.score)(jackknife_groups(trials.labels))
        return estimate


class Precision(_Neighbours):
    """Share of generated samples inside some real ball, in [0, 1]; < 1 for equal distributions."""

    score = "precision"
    summary = "share of generated samples that lie among the real ones"
    about = About(order=40, standing="headline", low=0.0, high=1.0, against="recall")


class Recall(_Neighbours):
    """Share of real samples inside some generated ball, in [0, 1]; < 1 for equal distributions."""

    score = "recall"
    summary = "share of real samples that lie among the generated ones"
    about = About(order=50, standing="headline", low=0.0, high=1.0, error_of="real")


class Density(_Neighbours):
    """Mean number of real balls around a generated sample, over k; 1 for equal distributions."""

    score = "density"
    summary = "average number of real neighbourhoods a generated sample lies in, over k"
    about = About(order=60, standing="headline", low=0.0)


class Coverage(_Neighbours):
    """Share of real balls that hold a generated sample, in [0, 1]; depends on both set sizes."""

    score = "coverage"
    summary = "share of real neighbourhoods that hold a generated sample"
    about = About(order=70, standing="headline", low=0.0, high=1.0, error_of="real")


def _variants(k: int, closed: bool, default: bool) -> None:
    """Register the four scores for balls to the k-th neighbour, closed or open."""
    tail, note = ("", "") if closed else ("_strict", ", strict")
    for score in (Precision, Recall, Density, Coverage):
        word, against = score.__name__, score.about.against
        body = {
            "__doc__": score.__doc__,
            "__module__": __name__,
            "name": f"{word.lower()}_k{k}{tail}",
            "label": f"{word} (k={k}{note})",
            "summary": score.summary if closed else f"{score.summary}, without edges",
            "about": score.about.model_copy(
                update={"against": against and f"{against}_k{k}{tail}"}
            ),
            "k": k,
            "closed": closed,
            "minimum_n": k + 1,
            "default": default,
        }
        register(type(f"{word}K{k}{'' if closed else 'Strict'}", (score,), body))


_variants(3, closed=True, default=True)
_variants(5, closed=False, default=False)
