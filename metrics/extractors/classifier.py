"""A small classifier trained on the data set itself, for images unlike those of public networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.base import Extracted, Extractor
from metrics.extractors.tensors import weights_digest
from metrics.extractors.training import (
    Rows,
    check_shape,
    one_thread,
    stored_weights,
    training_key,
    training_set,
)
from metrics.memo import Store

PREPROCESSING = "uint8 / 127.5 - 1"
FEATURES = 64
STEPS = 600
BATCH = 64
LEARNING_RATE = 2e-3
MAX_IMAGES = 50_000
"""At most so many images are read and hashed; training does not benefit from more."""
RECIPE = f"cnn-32-64-{FEATURES} adam {LEARNING_RATE} cosine {BATCH}; {PREPROCESSING}; 1"
"""What the weights depend on besides data, seed and steps; its last word is a version."""


class SmallCNN(nn.Module):
    """Two 3x3 convolutions, one pooling, two linear layers; no layer mixes the batch.

    85,066 parameters for 8x8 grey images of 10 classes.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, generator: torch.Generator):
        super().__init__()
        channels, height, width = shape
        if height < 2 or width < 2:
            raise ValueError(f"images need at least 2x2 pixels, got {height}x{width}")
        # Layers made on "meta" draw no numbers from the global generator.
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, device="meta")
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, device="meta")
        self.hidden = nn.Linear(64 * (height // 2) * (width // 2), FEATURES, device="meta")
        self.head = nn.Linear(FEATURES, classes, device="meta")
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, C, H, W) -> features (B, 64), >= 0, and logits (B, K)."""
        x = images.float() / 127.5 - 1.0
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2).flatten(1)
        features = F.relu(self.hidden(x))
        return features, self.head(features)


class ClassifierExtractor(Extractor):
    """Penultimate features (B, 64) and logits (B, K) of a classifier of the data set's classes.

    Compare distances in these features under equal `hash` only: every training gives another
    feature space. `shape` is (C, H, W) of its input images.
    """

    dim = FEATURES
    has_logits = True
    label_logits = True

    def __init__(self, net: SmallCNN, shape: tuple[int, int, int], name: str = "classifier"):
        self.name = name
        self.shape = shape
        self._net = net.eval().requires_grad_(False)
        self.hash = weights_digest(PREPROCESSING, net.state_dict())

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, C, H, W) of the trained shape -> float32; ValueError on anything else."""
        check_shape(samples, self.shape, self.name)
        features, logits = self._net(samples.cpu())
        return Extracted(features, logits)


def train_classifier(
    images: Rows,
    labels: Tensor,
    *,
    store: Store | None = None,
    seed: int = 0,
    steps: int = STEPS,
    name: str = "classifier",
) -> ClassifierExtractor:
    """Extractor trained on uint8 images (n, C, H, W) and labels (n,) in [0, K), on one CPU thread.

    Train on other images than the reference of a comparison. Equal arguments give equal weights on
    one machine; no global random state is used. Of more than 50,000 images it uses 50,000, drawn by
    a fixed seed. If `store` has weights for these arguments, they are loaded, else saved there.
    """
    drawing = torch.Generator().manual_seed(0)
    found, labels, classes = training_set(images, labels, MAX_IMAGES, drawing)
    shape = (found.shape[1], found.shape[2], found.shape[3])
    generator = torch.Generator().manual_seed(seed)
    net = SmallCNN(shape, classes, generator)
    key = training_key([RECIPE, list(found.shape), seed, steps], found, labels)

    def train() -> Mapping[str, Tensor]:
        _fit(net, found, labels, steps, generator)
        return net.state_dict()

    net.load_state_dict(stored_weights(store, key, PREPROCESSING, train))
    return ClassifierExtractor(net, shape, name)


def _fit(
    net: SmallCNN, images: Tensor, labels: Tensor, steps: int, generator: torch.Generator
) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    order = torch.empty(0, dtype=torch.long)
    with one_thread(), torch.enable_grad():
        for _ in range(steps):
            if len(order) < min(BATCH, len(images)):
                order = torch.randperm(len(images), generator=generator)
            batch, order = order[:BATCH], order[BATCH:]
            loss = F.cross_entropy(net(images[batch])[1], labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
