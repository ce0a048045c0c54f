"""Bounded types for fields of untrusted JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[float, Field(ge=-1e150, le=1e150)]
"""Finite, as is its square."""
Name = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=1 << 20)]
"""Bounded, since pages and figures show it."""
Scalar = bool | Count | Number | Name | None
