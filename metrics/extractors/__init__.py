"""Extractors: networks that turn samples into features."""

from __future__ import annotations

import functools

from metrics.extractors.classifier import ClassifierExtractor, train_classifier
from metrics.extractors.clip import ClipExtractor
from metrics.extractors.dinov2 import SIZES, Dinov2Extractor
from metrics.extractors.efficientnet import EfficientNetExtractor
from metrics.extractors.head import HeadExtractor, train_head
from metrics.extractors.identity import IdentityExtractor
from metrics.extractors.inception import InceptionExtractor, InceptionSpatialExtractor
from metrics.extractors.vgg16 import Vgg16Extractor
from metrics.registry import EXTRACTORS

EXTRACTORS.update(
    {
        "identity": IdentityExtractor,
        "classifier": train_classifier,
        "efficientnet-lite0": EfficientNetExtractor,
        "inception": functools.partial(InceptionExtractor, resize="tf1"),
        "inception-spatial": InceptionSpatialExtractor,
        "inception-clean": functools.partial(InceptionExtractor, resize="clean"),
        "vgg16": Vgg16Extractor,
        "clip": ClipExtractor,
        **{name: functools.partial(Dinov2Extractor, name=name) for name in SIZES},
    }
)

__all__ = [
    "ClassifierExtractor",
    "ClipExtractor",
    "Dinov2Extractor",
    "EfficientNetExtractor",
    "HeadExtractor",
    "IdentityExtractor",
    "InceptionExtractor",
    "InceptionSpatialExtractor",
    "Vgg16Extractor",
    "train_classifier",
    "train_head",
]
