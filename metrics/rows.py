"""The type of training samples of extractors: they need not be in memory."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """Samples (n, ...) that are indexed by row: a tensor, or a file that is read on demand."""

    @property
    def shape(self) -> torch.Size:
        """(n, ...)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of a value."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Tensor: ...
