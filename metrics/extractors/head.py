"""A classifier of the data set's classes for photographs: a trained head on a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.base import Extracted, Extractor
from metrics.extractors.efficientnet import EfficientNetExtractor
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

FEATURES = 128
IMAGES = 10_000
"""At most so many training images, drawn by the seed: about 70 s of one CPU core, once."""
EPOCHS = 30
BATCH = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.3
DROPOUT = 0.5
SMOOTHING = 0.1
EXTRACT = 500
RECIPE = (
    f"sqrt(x + 1e-3), mlp {FEATURES} relu, adamw {LEARNING_RATE} cosine {EPOCHS} x {BATCH},"
    f" decay {WEIGHT_DECAY},"
    f" dropout {DROPOUT}, smoothing {SMOOTHING}, at most {IMAGES}; 1"
)
"""What the weights depend on besides data, network and seed; its last word is a version."""

Tell = Callable[[str], None]


class Head(nn.Module):
    """Square roots of a frozen network's features, standardised, through one hidden layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        # Layers made on "meta" draw no numbers from the global generator.
        self.hidden = nn.Linear(dim, FEATURES, device="meta")
        self.head = nn.Linear(FEATURES, classes, device="meta")
        self.to_empty(device="cpu")
        nn.init.zeros_(self.mean)
        nn.init.ones_(self.std)
        for layer in (self.hidden, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, kept: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Take (B, D) >= 0 -> features (B, 128) and logits (B, K); `kept` scales the inputs."""
        features = F.relu(self.hidden((spread(x) - self.mean) / self.std * kept))
        return features, self.head(features)


def spread(x: Tensor) -> Tensor:
    """Square root of features >= 0, which are mostly small; the offset bounds the slope at 0."""
    return (x + 1e-3).sqrt()


class HeadExtractor(Extractor):
    """Penultimate features (B, 128) and logits (B, K) of a head on `network`'s features.

    Compare distances in these features under equal `hash` only; it covers both networks. `shape`
    is (C, H, W) of its input images.
    """

    name = "classifier"
    dim = FEATURES
    has_logits = True
    label_logits = True

    def __init__(self, network: Extractor, head: Head, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._network = network
        self._head = head.eval().requires_grad_(False)
        self.hash = weights_digest(network.hash, head.state_dict())

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, C, H, W) of the trained shape -> float32; ValueError on anything else."""
        check_shape(samples, self.shape, self.name)
        features, logits = self._head(self._network(samples).features)
        return Extracted(features, logits)


def train_head(
    images: Rows,
    labels: Tensor,
    *,
    network: Extractor | None = None,
    store: Store | None = None,
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> HeadExtractor:
    """Extractor trained on uint8 images (n, 3, H, W) and labels (n,) in [0, K).

    `network` is EfficientNet-Lite0 by default. At most 10,000 images are used. Equal arguments
    give equal weights on one machine and device; no global random state is used. If `store` has a
    head for these arguments, it is loaded, else saved there. `tell` receives messages on progress,
    the first before anything slow.
    """
    generator = torch.Generator().manual_seed(seed)
    found, labels, classes = training_set(images, labels, IMAGES, generator)
    network = network or EfficientNetExtractor()
    shape = (found.shape[1], found.shape[2], found.shape[3])
    key = training_key([RECIPE, network.hash, list(found.shape), classes, seed], found, labels)
    head = Head(network.dim, classes, generator)

    def train() -> Mapping[str, Tensor]:
        tell(
            f"Training the classifier for class accuracy, on {network.name} features of "
            f"{len(found):,} training images"
            + (". It is kept for later runs." if store is not None else ".")
        )
        _fit(head, _features(network, found, tell), labels, generator)
        return head.state_dict()

    head.load_state_dict(stored_weights(store, key, network.hash, train))
    return HeadExtractor(network, head, shape)


def _features(network: Extractor, images: Tensor, tell: Tell) -> Tensor:
    found = []
    for start in range(0, len(images), EXTRACT):
        found.append(network(images[start : start + EXTRACT]).features)
        done = start + len(found[-1])
        if done % (5 * EXTRACT) == 0 or done == len(images):
            tell(f"classifier: {done:,} of {len(images):,} training images processed.")
    return torch.cat(found)


def _fit(head: Head, x: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    inputs = spread(x)
    head.mean.copy_(inputs.mean(0))
    # Otherwise the scaling would blow up features that are almost always 0.
    head.std.copy_(inputs.std(0, correction=0).clamp_min(1e-2))
    parameters = list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batch = min(BATCH, len(x))
    per_epoch = len(x) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * per_epoch)
    with one_thread(), torch.enable_grad():
        for _ in range(EPOCHS):
            order = torch.randperm(len(x), generator=generator)
            for step in range(per_epoch):
                chosen = order[step * batch : (step + 1) * batch]
                mask = torch.rand(len(chosen), x.shape[1], generator=generator) >= DROPOUT
                logits = head(x[chosen], mask / (1 - DROPOUT))[1]
                loss = F.cross_entropy(logits, labels[chosen], label_smoothing=SMOOTHING)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
