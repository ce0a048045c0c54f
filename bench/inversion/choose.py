"""Which images are inverted, and to which classes they are edited."""

from __future__ import annotations

import torch
from torch import Tensor

EVERY_CLASS = 10
"""Up to so many classes an image is edited to each other one, beyond only to the next."""


def balanced(labels: Tensor, n: int) -> Tensor:
    """Indices, ascending, of at most n samples: the first of every class, equally many of each.

    Where n is no multiple of the number of classes, or a class runs out, counts differ.
    """
    rank = torch.empty_like(labels)
    for label in sorted(set(labels.tolist())):
        own = labels == label
        rank[own] = torch.arange(int(own.sum()))
    classes = int(labels.max()) + 1
    return (rank * classes + labels).argsort()[:n].sort().values


def edit_targets(labels: Tensor, classes: int) -> list[Tensor]:
    """Classes (N,) to edit images of `labels` (N,) to, one tensor an edit; never their own."""
    offsets = range(1, classes) if classes <= EVERY_CLASS else range(1, min(2, classes))
    return [(labels + offset) % classes for offset in offsets]
