"""The strength of guidance: what a rule did while it sampled, in units of CFG's update.

A rule's scale g is a knob and no strength: at the same g some rules guide as CFG at g = 7 and some
hardly at all. Per call, the push of a rule is P = D_g - D_c and CFG's update U = D_c - D_null. A
rule acts where |P| > 1e-6 |D_c|. The sums over calls are taken while sampling, apart for each
sample; no evaluation for them counts as cost. The weights |U|^2 depend on the noise levels, so
compare values on the same grid only.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from metrics.about import About
from metrics.base import Array, Estimate, Metric, SampleSet, Unsuitable
from metrics.errors import jackknife_estimate, jackknife_groups
from metrics.registry import register
from metrics.tilt import GuidedSamples


class _Pushed(Metric):
    """A ratio of sums over metered samples, with the delete-group jackknife over them."""

    direction = "none"
    real_needs = frozenset()
    uses_extractor = False
    of_sampling = True
    minimum_n = 1

    @staticmethod
    def ratio(sums: Array) -> Array:
        """The value for sums (..., 5) of <P, U>, |U|^2, |P|^2, <P, U>^2 / |U|^2, all |U|^2."""
        raise NotImplementedError

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """Return the value; Unsuitable if the samples were not metered."""
        if not isinstance(fake, GuidedSamples) or not len(fake.metered):
            why = fake.unmetered if isinstance(fake, GuidedSamples) else ""
            raise Unsuitable(f"{self.name}: {why or 'these samples were not metered'}")
        whole, groups = fake.pushes.sum(0), jackknife_groups(fake.labels[fake.metered])
        value = float(self.ratio(whole))
        if len(groups) == 1:
            return Estimate(value)
        inside = np.zeros((groups.max() + 1, 5))
        np.add.at(inside, groups, fake.pushes)
        return jackknife_estimate(value, self.ratio(whole - inside), groups)


def _divide(a: Array, b: Array) -> Array:
    """The quotient a / b, and 0 where b is 0."""
    found: Array = np.divide(a, b, out=np.zeros_like(a), where=b > 0)
    return found


@register
class Strength(_Pushed):
    """1 + sum <P, U> / sum |U|^2 over the calls at which the rule acts; 1 if it never does.

    The scale at which CFG would come closest to the rule, by least squares; for CFG it is g.
    """

    name = "strength"
    label = "Strength"
    summary = "effective guidance scale while the rule acts; that of CFG is g"
    about: ClassVar = About(order=190, standing="shown", error_of="generated")

    @staticmethod
    def ratio(sums: Array) -> Array:
        """The least-squares scale."""
        return 1.0 + _divide(sums[..., 0], sums[..., 1])


@register
class Duration(_Pushed):
    """The share of sum |U|^2 at which the rule acts, in [0, 1]."""

    name = "duration"
    label = "Duration"
    summary = "share of the trajectory in which the rule guides, weighted by CFG's update"
    about: ClassVar = About(order=191, low=0.0, high=1.0, error_of="generated")

    @staticmethod
    def ratio(sums: Array) -> Array:
        """The share."""
        return _divide(sums[..., 1], sums[..., 4])


@register
class Dose(_Pushed):
    """1 + (strength - 1) * duration: the scale of CFG over the whole trajectory."""

    name = "dose"
    label = "Dose"
    summary = "strength times duration: effective scale over the whole trajectory"
    about: ClassVar = About(order=192, error_of="generated")

    @staticmethod
    def ratio(sums: Array) -> Array:
        """The scale."""
        return 1.0 + _divide(sums[..., 0], sums[..., 4])


@register
class Across(_Pushed):
    """The share of sum |P|^2 across CFG's direction, in [0, 1]; 0 for CFG."""

    name = "across"
    label = "Across"
    summary = "share of the rule's push that is orthogonal to CFG's"
    about: ClassVar = About(order=193, low=0.0, high=1.0, error_of="generated")

    @staticmethod
    def ratio(sums: Array) -> Array:
        """The share, without rounding below 0."""
        return _divide(np.maximum(sums[..., 2] - sums[..., 3], 0.0), sums[..., 2])
