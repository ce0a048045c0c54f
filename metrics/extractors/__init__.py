"""Extractors: networks that turn samples into features."""

from __future__ import annotations

import functools
from typing import TypeVar

from metrics.base import Extractor
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

E = TypeVar("E", bound=type[Extractor])


def register_extractor(cls: E) -> E:
    """Class decorator that registers an extractor of a plugin under its `name`.

    It is made with the value of --weights, which may be None, and with `download=`. TypeError if
    the class lacks a part of the interface; ValueError if the name is taken.
    """
    missing = [] if hasattr(cls, "name") else ["name"]
    missing += sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise TypeError(f"extractor {cls.__qualname__} lacks {', '.join(missing)}")
    taken = EXTRACTORS.setdefault(cls.name, cls)
    # Reloading a module registers the same class again.
    if taken is not cls and getattr(taken, "__qualname__", "") != cls.__qualname__:
        raise ValueError(f"an extractor named {cls.name!r} is already registered")
    EXTRACTORS[cls.name] = cls
    return cls


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
    "register_extractor",
    "train_classifier",
    "train_head",
]
