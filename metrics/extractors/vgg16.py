"""VGG16's second hidden layer, for which precision and recall were first published."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.catalogue import VGG16
from metrics.extractors.images import ChunkedExtractor
from metrics.extractors.tensors import not_this_network, state_copy

PREPROCESSING = "tf1 bilinear 224, ImageNet normalisation, fc2_relu, float32"


class Vgg16Extractor(ChunkedExtractor):
    """Features (B, 4096), >= 0, of VGG16 (torchvision's weights) after its second hidden layer.

    Network and resize are those of torch-fidelity: TensorFlow 1's bilinear to 224. Kynkaanniemi et
    al. (2019) used this layer in float16 with other weights, so precision and recall agree with
    theirs to about 0.01 only.

    ValueError if the file `weights` does not hold this network.
    """

    name = "vgg16"
    dim = 4096

    def __init__(self, weights: Path, *, device: str | torch.device = "cpu") -> None:
        content = weights.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        library = f"torch-fidelity {version('torch-fidelity')}"
        about = f"{sha256} {PREPROCESSING} {library}"
        self.hash = hashlib.sha256(about.encode()).hexdigest()
        self.device = torch.device(device)
        self._net = _network(content, weights).to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self._net(images.to(self.device))[0]
        return features


def _network(content: bytes, path: Path) -> Any:
    """torch-fidelity's network, from a copy of the file that holds tensors only."""
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    copy = state_copy(content, path, VGG16)
    try:
        # torchvision draws initial weights, which are then replaced, from the global generator.
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=copy)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise not_this_network(path, VGG16) from error
