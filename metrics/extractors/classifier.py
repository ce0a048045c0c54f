"""A small classifier trained on the data set itself, for images no public network knows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.base import Extracted, Extractor
from metrics.extractors.weights import stored_weights, training_key, weights_digest
from metrics.memo import Store
from metrics.rows import Rows

PREPROCESSING = "uint8 / 127.5 - 1"
FEATURES = 64
STEPS = 600
BATCH = 64
LEARNING_RATE = 2e-3
MAX_IMAGES = 50_000
"""More images than training could use are not looked at, nor hashed for the cache."""
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

    Distances in these features compare only under one `hash`: another training gives another
    space. `shape` is (C, H, W) of the images it takes.
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
        if samples.dtype != torch.uint8 or tuple(samples.shape[1:]) != self.shape:
            raise ValueError(
                f"extractor {self.name} takes uint8 images (B, {', '.join(map(str, self.shape))}),"
                f" got {samples.dtype} {tuple(samples.shape)}"
            )
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

    Train on images that are not the reference of a comparison. Equal arguments give equal weights
    on one machine; no global random state is used. Of more than 50,000 images it takes 50,000,
    drawn by a fixed seed. A `store` gives the weights if it has them for
    these arguments, and gets them otherwise.
    """
    check_training_set(images, labels)
    labels = labels.detach().cpu().long()
    classes = int(labels.max()) + 1
    if len(images) > MAX_IMAGES:
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        rows = drawn[:MAX_IMAGES].sort().values  # ascending, as a file is read best
        found, labels = images[rows], labels[rows]
    else:
        found = images[:]
    found = found.detach().cpu().contiguous()
    shape = (found.shape[1], found.shape[2], found.shape[3])
    generator = torch.Generator().manual_seed(seed)
    net = SmallCNN(shape, classes, generator)
    key = training_key([RECIPE, list(found.shape), seed, steps], found, labels)

    def train() -> Mapping[str, Tensor]:
        _fit(net, found, labels, steps, generator)
        return net.state_dict()

    net.load_state_dict(stored_weights(store, key, PREPROCESSING, train))
    return ClassifierExtractor(net, shape, name)


def check_training_set(images: Rows, labels: Tensor) -> None:
    """ValueError unless there are uint8 images (n, C, H, W), n > 0, with labels (n,) >= 0."""
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"expected uint8 images (n, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError("expected one label >= 0, of an integer dtype, for every image")


def _fit(
    net: SmallCNN, images: Tensor, labels: Tensor, steps: int, generator: torch.Generator
) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    # The order of summation, and so the weights, would depend on the number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():
            order = torch.empty(0, dtype=torch.long)
            for _ in range(steps):
                if len(order) < min(BATCH, len(images)):
                    order = torch.randperm(len(images), generator=generator)
                batch, order = order[:BATCH], order[BATCH:]
                loss = F.cross_entropy(net(images[batch])[1], labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
