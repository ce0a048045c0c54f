"""Several processes that train one run: if one fails, all stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, distributed

from bench.system.errors import UserError, said
from bench.system.failures import KEPT, explain_failure

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_LOST = ("connection closed by peer", "connection reset by peer", "gloo/transport")
"""Parts of Gloo's RuntimeError when another process is gone."""


@contextmanager
def leader_first(fabric: Fabric) -> Iterator[bool]:
    """A block in which only the first process works and the others wait; yields if this is it.

    All processes must enter it. An error of the first is raised there, and as a UserError in the
    others, which would otherwise wait for it until the launcher ends them.
    """
    failed: Exception | None = None
    try:
        yield fabric.is_global_zero
    except Exception as error:
        failed = error
    if fabric.world_size > 1:
        problem = fabric.broadcast(in_words(failed) if failed is not None else "")
        if problem and failed is None:
            raise UserError(f"The first process stopped, and this one with it: {problem}")
    if failed is not None:
        raise failed


def any_process(fabric: Fabric, here: bool) -> bool:
    """Whether `here` is true in any process; all must call this."""
    if fabric.world_size == 1:
        return here
    flag = torch.tensor(float(here), device=fabric.device)
    return bool(cast(Tensor, fabric.all_reduce(flag, reduce_op="sum")) > 0)


@contextmanager
def lost_process_explained(fabric: Fabric) -> Iterator[None]:
    """Turn the loss of another process during the block into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not is_loss(error):
            raise
        raise UserError(
            f"Another training process stopped; its message is above. {KEPT}"
        ) from error


def in_words(error: Exception) -> str:
    """An error as a sentence for another process."""
    if isinstance(error, UserError):
        return str(error)
    return explain_failure(error) or f"{type(error).__name__}: {said(error)}."


def is_loss(error: Exception) -> bool:
    """Whether an error means that another process is gone."""
    if distributed.is_available() and isinstance(error, distributed.DistError):
        return True
    return any(word in str(error).lower() for word in _LOST)
