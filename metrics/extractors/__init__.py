"""Extractors: networks that turn samples into features."""

from __future__ import annotations

import functools

from metrics.extractors.classifier import ClassifierExtractor, train_classifier
from metrics.extractors.efficientnet import EfficientNetExtractor
from metrics.extractors.head import HeadExtractor, train_head
from metrics.extractors.identity import IdentityExtractor
from metrics.extractors.inception import InceptionExtractor, MissingWeights
from metrics.extractors.spatial import InceptionSpatialExtractor
from metrics.registry import EXTRACTORS

EXTRACTORS.update(
    {
        "identity": IdentityExtractor,
        "classifier": train_classifier,
        "efficientnet-lite0": EfficientNetExtractor,
        "inception": functools.partial(InceptionExtractor, resize="tf1"),
        "inception-spatial": InceptionSpatialExtractor,
        "inception-clean": functools.partial(InceptionExtractor, resize="clean"),
    }
)

__all__ = [
    "ClassifierExtractor",
    "EfficientNetExtractor",
    "HeadExtractor",
    "IdentityExtractor",
    "InceptionExtractor",
    "InceptionSpatialExtractor",
    "MissingWeights",
    "train_classifier",
    "train_head",
]
