"""Precision, recall, density and coverage: metrics of k-nearest-neighbour balls."""

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
    """Shares in [0, 1], but density in [0, n_real / k], which is 1 on average for equal sets."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Neighbourhoods:
    """Who lies in whose k-th neighbour ball, of n real and m generated samples.

    `balls` (m,) counts the real balls around each generated sample; `covered` (n,) says which real
    balls hold a generated sample, `recalled` (n,) which real samples some generated ball holds.
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
        """Precision with the binomial error; replicates without groups (m,) of generated ones."""
        return share_estimate(self.balls > 0, fake_groups)

    def recall(self, real_groups: Groups) -> Estimate:
        """Recall with the binomial error, which takes the generated balls as given.

        The real samples are its trials: replicates are without groups (n,) of those.
        """
        return share_estimate(self.recalled, real_groups)

    def density(self, fake_groups: Groups) -> Estimate:
        """Density with the jackknife's error over groups (m,) of generated samples.

        The real balls are given, so a replicate is a mean over the samples that are left.
        """
        left = len(self.balls) - np.bincount(fake_groups)
        sums = self.balls.sum() - np.bincount(fake_groups, weights=self.balls)
        return jackknife_estimate(self.scores.density, sums / left / self.k, fake_groups)

    def coverage(self, real_groups: Groups) -> Estimate:
        """Coverage with the binomial error, which takes the generated samples as given.

        The real balls are its trials: replicates are without groups (n,) of those.
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
    """Decide who lies in whose ball, of features (n, D) and (m, D).

    A ball reaches the k-th other sample of its set. A sample on its edge is inside if `closed`
    (the papers; torch-fidelity) and outside if not (the prdc package; dgm-eval): copies of real
    images lie on edges. Every comparison is decided as if each squared distance were summed
    directly in float64, in one order that is the same for both; `device` and `block`, the most
    rows and columns of pairs held at once (multiples of 32, rows first and no more than columns),
    change time and memory, never the result.

    `real_radii` (n,) are the `squared_radii` of the real set where these were kept; they save a
    quarter of the time. ValueError if a set has no more than k samples, holds NaN or infinities,
    or the shapes do not go together.
    """
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:]:
        raise ValueError(f"features of shapes {real.shape} and {fake.shape} do not compare")
    if real_radii is None:
        real_radii = squared_radii(real, k, device, block)
    elif real_radii.shape != (len(real),):
        raise ValueError(f"{len(real)} real samples need as many radii, got {real_radii.shape}")
    elif real_radii.dtype != np.float64 or not (real_radii >= 0).all():
        raise ValueError("squared radii are float64 numbers that are not negative")
    found = memberships(
        _tensor(real, device),
        _tensor(fake, device),
        _tensor(real_radii, device),
        _tensor(squared_radii(fake, k, device, block), device),
        closed,
        block,
    )
    return Neighbourhoods(k, *(part.cpu().numpy() for part in found))


def neighbour_scores(
    real: Features,
    fake: Features,
    k: int = 3,
    closed: bool = True,
    real_radii: Array | None = None,
    device: str = "cpu",
    block: tuple[int, int] = (STRIP, CHUNK),
) -> NeighbourScores:
    """All four scores, without errors; see `neighbourhoods` for the arguments."""
    return neighbourhoods(real, fake, k, closed, real_radii, device, block).scores


@remember(8)
@kept("radii", only)
def squared_radii(
    x: Features, k: int, device: str = "cpu", block: tuple[int, int] = (STRIP, CHUNK)
) -> Array:
    """Squared distance (n,) of each sample (n, D) to its k-th nearest other sample, in float64.

    The array is read-only; the store of a kept set (`keep_in`) has those of an earlier process.
    """
    # A copy owns its data, so what is computed from it can be remembered.
    radii: Array = ball_radii(_tensor(x, device), k, block).cpu().numpy().copy()
    radii.setflags(write=False)
    return radii


def _tensor(x: npt.NDArray[Any], device: str) -> Tensor:
    with warnings.catch_warnings():
        # Nothing is written to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(x).to(device)


class _Neighbours(Metric):
    """One of the four scores; those with one k and tie rule share one computation."""

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
        if self.score == "precision":
            return found.precision(jackknife_groups(fake.labels))
        if self.score == "recall":
            return found.recall(jackknife_groups(real.labels))
        if self.score == "density":
            return found.density(jackknife_groups(fake.labels))
        return found.coverage(jackknife_groups(real.labels))


class Precision(_Neighbours):
    """Share of generated samples inside some real ball; 0 to 1, below 1 even for equal sets."""

    score = "precision"
    summary = "share of generated samples that lie among the real ones"
    about = About(order=40, standing="headline", low=0.0, high=1.0, against="recall")


class Recall(_Neighbours):
    """Share of real samples inside some generated ball; 0 to 1, below 1 even for equal sets."""

    score = "recall"
    summary = "share of real samples that lie among the generated ones"
    about = About(order=50, standing="headline", low=0.0, high=1.0, error_of="real")


class Density(_Neighbours):
    """Real balls around a generated sample, over k; 1 on average for equal sets, may exceed 1."""

    score = "density"
    summary = "average number of real neighbourhoods a generated sample lies in, over k"
    about = About(order=60, standing="headline", low=0.0)


class Coverage(_Neighbours):
    """Share of real balls that hold a generated sample; 0 to 1, depends on the sizes' ratio."""

    score = "coverage"
    summary = "share of real neighbourhoods that hold a generated sample"
    about = About(order=70, standing="headline", low=0.0, high=1.0, error_of="real")


def _variants(k: int, closed: bool, default: bool) -> None:
    """Register the four scores for balls to the k-th neighbour, with or without their edge."""
    tail, note = ("", "") if closed else ("_strict", ", strict")
    for score in (Precision, Recall, Density, Coverage):
        word, against = score.__name__, score.about.against
        body = {
            "__doc__": score.__doc__,
            "__module__": __name__,
            "name": f"{word.lower()}_k{k}{tail}",
            "label": f"{word} (k={k}{note})",
            "summary": score.summary if closed else f"{score.summary}, edges left out",
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
