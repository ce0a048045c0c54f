"""VGG16's second hidden layer, in which precision and recall were first published."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.base import Extracted, Extractor
from metrics.extractors.images import chunk_size, colour, exact_arithmetic, in_chunks
from metrics.extractors.tensors import not_this_network, state_copy
from metrics.extractors.weights_table import VGG16

PREPROCESSING = "tf1 bilinear 224, ImageNet normalisation, fc2_relu, float32"
CHUNK = 8


class Vgg16Extractor(Extractor):
    """Features (B, 4096), >= 0, of VGG16 (torchvision's weights) after its second hidden layer.

    torch-fidelity's network and its resize, TensorFlow 1's bilinear to 224. Precision and recall
    of Kynkaanniemi et al. (2019) were measured in this layer with other weights of the network and
    in float16, so that values agree with theirs to about 0.01 and not to the last digit.

    ValueError if the file `weights` does not hold this network.
    """

    name = "vgg16"
    dim = 4096

    def __init__(
        self,
        weights: Path,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        content = weights.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        library = f"torch-fidelity {version('torch-fidelity')}"
        about = f"{sha256} {PREPROCESSING} {library}"
        self.hash = hashlib.sha256(about.encode()).hexdigest()
        self.device = torch.device(device)
        self._net = _network(content, weights).to(self.device)

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        images = colour(samples, self.name)
        with exact_arithmetic():
            features = in_chunks(self._features, images, chunk_size(self.device, CHUNK))
        return Extracted(features, None)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self._net(images.to(self.device))[0]
        return features


def _network(content: bytes, path: Path) -> Any:
    """Build the network as torch-fidelity does; the file itself can only hold tensors."""
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    copy = state_copy(content, path, VGG16)
    try:
        # torchvision draws initial weights, which are replaced, from the global generator.
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=copy)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise not_this_network(path, VGG16) from error
