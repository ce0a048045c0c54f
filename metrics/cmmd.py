"""CMMD: the Gaussian kernel distance of CLIP embeddings."""

from __future__ import annotations

import numpy as np

from metrics.base import Domain, Estimate, ExactMixture, Extractor, Metric, SampleSet
from metrics.errors import Groups
from metrics.kid import mmd_estimate, mmd_inputs
from metrics.memo import inherit, remember
from metrics.mmd import Features, GaussianKernel, Mmd, squared_mmd
from metrics.registry import register

SIGMA = 10.0
SCALE = 1000.0


def clip_mmd(real: Features, fake: Features, real_groups: Groups, fake_groups: Groups) -> Mmd:
    """Squared MMD, the biased V-statistic, of embeddings (n, D) scaled to unit length.

    Jayasumana et al. (2024), section 4, as in their code, with kernel exp(-|x - y|^2 / (2 10^2));
    they multiply the result by 1000. ValueError if an embedding is 0.
    """
    kernel = GaussianKernel(SIGMA)
    return squared_mmd(_unit(real), _unit(fake), real_groups, fake_groups, kernel, unbiased=False)


@remember(8)
def _unit(x: Features) -> Features:
    norms = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    if not (norms > 0).all():
        raise ValueError("an embedding is zero and has no direction")
    unit: Features = (x / norms[:, None]).astype(np.float32)
    unit.setflags(write=False)
    inherit(x, unit, "unit length")
    return unit


@register
class ClipMmd(Metric):
    """CMMD, times 1000 as published; about 1/n above 0 for equal distributions.

    Published values use CLIP ViT-L/14 at 336 pixels, resized with antialiasing.
    """

    name = "cmmd"
    label = "CMMD (x1000)"
    summary = "Gaussian kernel distance of normalised CLIP embeddings, times 1000"
    direction = "lower"
    needs = frozenset({"features"})
    domain = "image"
    default = False

    def supports(
        self, *, domain: Domain, extractor: Extractor | None, exact: ExactMixture | None
    ) -> str | None:
        """Also refuses an extractor that is not a CLIP network."""
        reason = super().supports(domain=domain, extractor=extractor, exact=exact)
        if reason is None and extractor is not None and "clip" not in extractor.name.lower():
            return f"cmmd is defined for CLIP embeddings, not for those of {extractor.name}"
        return reason

    def compute(self, *, real: SampleSet, fake: SampleSet, extractor: str) -> Estimate:
        """1000 times `clip_mmd`."""
        return mmd_estimate(clip_mmd(*mmd_inputs(real, fake, extractor)), fake.n, SCALE)
