"""Safetensors files, written atomically."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bench.system.failures import system_error
from bench.system.files import atomic_path


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    before: Callable[[], None] = lambda: None,
) -> None:
    """Write a safetensors file atomically; `before` is called before it is renamed to `path`.

    OSError that names `path` if it cannot be written; the library raises its own error.
    """
    try:
        with atomic_path(path) as temporary:
            save_file(dict(tensors), temporary, metadata=dict(metadata) or None)
            before()
    except SafetensorError as error:
        refusal = system_error(error)
        if refusal is None:
            raise
        raise OSError(refusal.errno, refusal.strerror, str(path)) from error
