"""The arithmetic of training: float32, float32 with TF32 products, bfloat16 where it is safe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch

FabricPrecision = Literal["32-true", "bf16-mixed"]
PRECISIONS: Mapping[str, FabricPrecision] = {
    "32-true": "32-true",
    "tf32": "32-true",
    "bf16-mixed": "bf16-mixed",
}
"""What --precision takes, and what Fabric calls it."""


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """TF32 in CUDA's matrix products and convolutions for 'tf32' and in none otherwise.

    Torch's own default has it in convolutions, which is not the float32 that '32-true' says.
    What was set before is set again afterwards.
    """
    allowed = precision == "tf32"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
