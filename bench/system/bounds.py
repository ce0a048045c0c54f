"""Untrusted JSON: bounded types for its fields, and reading it from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from bench.system.errors import UserError, explain
from bench.system.files import read_whole

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[float, Field(ge=-1e150, le=1e150)]
"""Finite, as is its square."""
Name = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=1 << 20)]
"""Bounded, since pages and figures show it."""
Scalar = bool | Count | Number | Name | None


def read_json(path: Path, parse: Callable[[bytes], T], what: str, remedy: str) -> T:
    """What `parse` (a model's `model_validate_json`) makes of a JSON file.

    Raises UserError, which says that the file is not `what` and ends with `remedy`.
    """
    try:
        return parse(read_whole(path))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(f"{path} is not {what} ({explain(error)}); {remedy}.") from None
