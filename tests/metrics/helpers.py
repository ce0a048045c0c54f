"""Sample sets and a stub of an extractor."""

import numpy as np
import torch

from metrics.accumulate import Accumulator
from metrics.base import Extracted, Extractor, SampleSet
from metrics.extractors.identity import IdentityExtractor


class Stub(Extractor):
    """Images to (sum, first value) and two logits; counts its calls."""

    name = "stub"
    dim = 2
    hash = "0"
    has_logits = True
    label_logits = True

    def __init__(self, poison: float = 0.0) -> None:
        self.calls = 0
        self.poison = poison

    def __call__(self, samples):
        self.calls += 1
        flat = samples.flatten(1).float()
        features = torch.stack([flat.sum(1), flat[:, 0] + self.poison], 1)
        return Extracted(features, torch.stack([flat[:, 0], 100 - flat[:, 0]], 1))


def vectors(x: np.ndarray, labels: np.ndarray | None = None, exact=None) -> SampleSet:
    x = torch.as_tensor(x, dtype=torch.float32)
    accumulator = Accumulator({"identity": IdentityExtractor(x.shape[1])}, ["features", "moments"])
    accumulator.update(x, np.zeros(len(x), np.int64) if labels is None else labels)
    return accumulator.finish(exact)


def uint8_images(n: int, shape=(1, 8, 8), seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
