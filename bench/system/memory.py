"""Free memory, and batches that shrink when they do not fit."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from bench.system.failures import is_out_of_memory

T = TypeVar("T")
_MEMINFO = Path("/proc/meminfo")


class Batches:
    """A batch size that is halved for good when a batch does not fit.

    `because` says why results do not depend on it, up to rounding in matrix products.
    """

    def __init__(
        self,
        size: int,
        tell: Callable[[str], None] = lambda _: None,
        because: str = "samples depend only on their index",
    ) -> None:
        self.size, self._tell, self._because = size, tell, because

    def run(self, what: str, work: Callable[[int], T]) -> T:
        """`work(size)`, repeated with half the size while it runs out of memory.

        Raises its error if one sample does not fit.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            # Outside the handler, since it keeps the frames and tensors of the failure alive.
            free_unused()
            self.size = (self.size + 1) // 2
            self._tell(
                f"{what}: out of memory; continuing with batches of {self.size}: {self._because}."
            )


def free_unused() -> None:
    """Free tensors that only reference cycles hold, and what torch keeps of a GPU's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int | None:
    """Free memory of `device` in bytes; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        for line in _MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
