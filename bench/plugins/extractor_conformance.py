"""The conformance battery of extractors, for plugins to inherit.

    from bench.extractor_conformance import ExtractorConformance

    class TestMine(ExtractorConformance):
        extractor = Mine

Run it with pytest. `weights` is the path of --weights, and `shape` that of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from bench.evaluation.passes import extract
from bench.plugins.conformance import check_randomness, untouched_global_rng
from bench.plugins.load import KINDS
from bench.system.entries import check_object
from metrics.base import Extractor

N = 6


class ExtractorConformance:
    """Tests of one extractor on random samples."""

    extractor: ClassVar[Callable[..., Extractor]]
    weights: ClassVar[str | None] = None
    shape: ClassVar[tuple[int, ...]] = (3, 32, 32)

    def _made(self) -> Extractor:
        return type(self).extractor(self.weights, download=False)

    def _samples(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        if self._made().domain == "vector":
            return torch.randn(N, *self.shape, generator=generator)
        return torch.randint(256, (N, *self.shape), generator=generator, dtype=torch.uint8)

    def test_it_has_every_part_of_an_extractor(self) -> None:
        """Names, types and arguments are those of `Extractor`."""
        maker = type(self).extractor
        if isinstance(maker, type):
            KINDS["extractors"].check(maker)
        made = self._made()
        check_object("extractor", made, Extractor)
        assert made.hash, "hash is empty, expected a text that names weights and preprocessing"
        assert made.dim > 0, f"dim is {made.dim}, expected the number of features"

    def test_hash_is_the_same_at_every_start(self) -> None:
        """Stored features and values are found by it."""
        first, again = self._made().hash, self._made().hash
        assert first == again, f"two instances have the hashes {first!r} and {again!r}"

    def test_features_have_the_stated_form(self) -> None:
        """Finite float32 (B, dim), and logits (B, K) if `has_logits`."""
        made, samples = self._made(), self._samples()
        for count in (N, 1):
            features, logits = extract(made, samples[:count])
            for name, found in (("features", features), ("logits", logits)):
                assert found is None or torch.isfinite(found).all(), f"{name} are not finite"

    def test_features_depend_only_on_the_sample(self) -> None:
        """Neither the batch nor the place in it changes them."""
        made, samples = self._made(), self._samples()
        whole = extract(made, samples).features
        parts = torch.cat([extract(made, samples[i:j]).features for i, j in ((0, 1), (1, N))])
        turned = extract(made, samples.flip(0)).features.flip(0)
        most = float(whole.abs().max())
        for found in (parts, turned):
            apart = float((found - whole).abs().max())
            assert apart <= 1e-3 * most, (
                f"features differ by {apart:.2g} in another batch, expected rounding only"
            )

    def test_features_differ_between_samples(self) -> None:
        """Two different samples have different features."""
        features = extract(self._made(), self._samples()).features
        assert not torch.equal(features[0], features[1]), "two samples have equal features"

    def test_it_draws_no_random_numbers(self) -> None:
        """The same call twice gives the same features; the global generator is not used."""
        samples = self._samples()
        with untouched_global_rng():
            made = self._made()
        check_randomness(lambda: extract(made, samples).features)

    def test_samples_are_unchanged(self) -> None:
        """All extractors of a sweep get the same batch."""
        samples = self._samples()
        before = samples.clone()
        extract(self._made(), samples)
        assert torch.equal(samples, before), "it writes into its input, expected a copy"
