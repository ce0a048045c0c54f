"""Batches that shrink when memory does not suffice."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class Batches:
    """A batch size that is halved whenever a batch does not fit, and stays so.

    Results are those of the whole batch, up to the rounding of matrix products of other shapes, if
    the batch may be cut at all; `because` says why it may.
    """

    def __init__(
        self,
        size: int,
        tell: Callable[[str], None] = lambda _: None,
        because: str = "samples depend on their index alone",
    ) -> None:
        self.size, self._tell, self._because = size, tell, because

    def run(self, what: str, work: Callable[[int], T]) -> T:
        """`work(size)`, again with half the size while it runs out of memory.

        With one sample a batch the error is the caller's.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            # Outside the handler the frames of the failure, and what they hold, are gone.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.size = (self.size + 1) // 2
            self._tell(
                f"{what}: memory does not suffice; going on with batches of {self.size}: "
                f"{self._because}."
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of this machine, does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocators of the CPU and of MPS raise a plain RuntimeError, as do CUDA's libraries.
    words = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
