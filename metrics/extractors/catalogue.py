"""One line about each built-in extractor, which needs no weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """A line about an extractor; `dim` is 0 if it depends on the data."""

    summary: str
    dim: int


ABOUT: dict[str, About] = {
    "identity": About("vectors, unchanged", 0),
    "classifier": About("trained on the data set, 64 features or 128 for photographs", 0),
    "efficientnet-lite0": About("EfficientNet-Lite0, pooled, 128 px bicubic", 1280),
    "inception": About("Inception-v3 of FID, pool3, TensorFlow 1's resize to 299 px", 2048),
    "inception-spatial": About("Inception-v3, unpooled features of sFID, as inception", 2023),
    "inception-clean": About("Inception-v3 of FID, pool3, clean-fid's resize to 299 px", 2048),
    "vgg16": About("VGG16, second hidden layer, TensorFlow 1's resize to 224 px", 4096),
    "dinov2": About("DINOv2 ViT-L/14, class token, 224 px bicubic", 1024),
    "dinov2-vit-s-14": About("DINOv2 ViT-S/14, otherwise as dinov2", 384),
    "dinov2-vit-b-14": About("DINOv2 ViT-B/14, otherwise as dinov2", 768),
    "dinov2-vit-g-14": About("DINOv2 ViT-g/14, otherwise as dinov2", 1536),
    "clip": About("CLIP ViT-L/14 at 336 px, unit-length embedding, bicubic", 768),
}
"""By the extractor's name; those of plugins are not here."""
