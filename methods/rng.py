"""Random generators that are passed as arguments: one for sampling, one for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed derived from `parts`, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class SampleRNG:
    """One generator per sample index, on the CPU: the draws for image i depend on (seed, i) only.

    They do not depend on batch size, device count, order or resume point. All methods and guidance
    scales share the noise of an index, so comparisons are paired. Philox is counter-based and has a
    128-bit key. torch's CPU generator keeps only 32 bits of a seed, so that some pairs among 50,000
    indices would get the same noise.
    """

    def __init__(self, seed: int, indices: Sequence[int], stream: str = "sample") -> None:
        self.seed = seed
        self.indices = tuple(int(i) for i in indices)
        key = derive_seed(stream, seed)
        self._generators = [
            np.random.Generator(np.random.Philox(key=[key, i])) for i in self.indices
        ]

    def __len__(self) -> int:
        return len(self.indices)

    def randn(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal (B, *shape) float32, the next draw of every index."""
        rows = [g.standard_normal(tuple(shape), dtype=np.float32) for g in self._generators]
        return torch.from_numpy(np.stack(rows)).to(device)

    def rand(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Uniform on [0, 1), (B, *shape) float32, the next draw of every index."""
        rows = [g.random(tuple(shape), dtype=np.float32) for g in self._generators]
        return torch.from_numpy(np.stack(rows)).to(device)


class BatchRNG:
    """The random draws of one training step: rows [start, stop) of the draw for the whole batch.

    Every process of a distributed run draws all `total` rows and keeps its own, so that the noise
    of row i does not depend on the number of processes.
    """

    def __init__(
        self, seed: int, total: int, start: int, stop: int, device: torch.device | str = "cpu"
    ) -> None:
        if not 0 <= start < stop <= total:
            raise ValueError(f"rows [{start}, {stop}) do not lie in a batch of {total}")
        self.seed, self.total, self.start, self.stop = seed, total, start, stop
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._shared: list[Tensor] | None = None
        self._taken = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def split(self, rows: int) -> list[BatchRNG]:
        """Split these rows into slices of at most `rows`, for callers that draw alike per slice.

        Each draw is made once for all rows and reused by the later slices, so that the slices
        together get the draws of an unsplit batch. Each slice has its own dropout masks.
        """
        if rows >= len(self):
            return [self]
        shared: list[Tensor] = []
        slices = []
        for start in range(self.start, self.stop, rows):
            stop = min(start + rows, self.stop)
            part = BatchRNG(self.seed, self.total, start, stop, self.device)
            part._generator, part._shared = self._generator, shared
            slices.append(part)
        return slices

    def randn(self, *shape: int) -> Tensor:
        """Standard normal (stop - start, *shape)."""
        return self._rows(
            lambda: torch.randn((self.total, *shape), generator=self._generator, device=self.device)
        )

    def rand(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), (stop - start, *shape)."""
        return self._rows(
            lambda: torch.rand((self.total, *shape), generator=self._generator, device=self.device)
        )

    def randint(self, high: int) -> Tensor:
        """Uniform integers 0..high - 1, int64 (stop - start,)."""
        return self._rows(
            lambda: torch.randint(
                high, (self.total,), generator=self._generator, device=self.device
            )
        )

    def _rows(self, draw: Callable[[], Tensor]) -> Tensor:
        if self._shared is None:
            whole = draw()
        else:
            if self._taken == len(self._shared):
                self._shared.append(draw())
            whole = self._shared[self._taken]
            self._taken += 1
        return whole[self.start : self.stop]

    def dropout(self, name: str) -> torch.Generator:
        """A new generator for dropout masks: equal names give equal masks.

        Two network calls share a mask by using the same name.
        """
        seed = derive_seed("dropout", name, self.seed, self.start)
        return torch.Generator(self.device).manual_seed(seed)
