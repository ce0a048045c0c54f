"""What a method knows about latents, which a decoder turns into images."""

from __future__ import annotations

from methods.spec import DataSpec


class LatentSpec(DataSpec):
    """Latents (C, H, W): networks take them as they take images, but they have no fixed range."""
