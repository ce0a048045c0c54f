"""Numbers as text, with decimals by the standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metrics.base import Estimate

MOST_DECIMALS = 6
FAR = 5.0
"""Standard errors below zero that chance does not explain."""
ROUNDING = 1e-12
"""Errors below this share of their value are rounding of float64."""


def decimals(values: Sequence[float]) -> int:
    """Decimals, without errors, for a table whose largest entry has four significant digits."""
    largest = max((abs(v) for v in values), default=0.0)
    return next((d for limit, d in ((0.1, 5), (10, 3), (100, 2)) if largest < limit), 1)


def error_decimals(se: float) -> int:
    """Decimals that show two significant digits of an error above 0."""
    exponent = int(f"{se:.1e}".partition("e")[2])
    return min(max(0, 1 - exponent), MOST_DECIMALS)


def kid_below_zero(value: float, se: float | None) -> str:
    """What a KID far below zero means, in a sentence; '' for others.

    Of samples that do not depend on the reference it is below zero only by chance. Samples that
    are in the reference too have a kernel value with themselves, which only one side counts.
    """
    if not se or value > -FAR * se:
        return ""
    return (
        f"KID is {-value / se:.0f} standard errors below zero, which other samples do not reach: "
        "the samples may be in the reference."
    )


def duration(seconds: float) -> str:
    """Two significant digits in a fitting unit, such as "61 µs" or "0.34 s"."""
    units = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0))
    unit, size = next((u for u in units if seconds < 100 * u[1]), units[-1])
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def number(value: float, digits: int) -> str:
    """Fixed decimals; an exponent for very large numbers and those that would round to zero."""
    fixed = f"{value:.{digits}f}"
    if abs(value) >= 1e6 or (value != 0.0 and float(fixed) == 0.0):
        return f"{value:.1e}"
    return fixed


def with_error(found: Estimate, digits: int) -> tuple[str, str]:
    """A value and its error, such as ("3.41", "± 0.12"); `digits` decimals without an error.

    A share of 0 or 1 has a standard error of 0, so that the end of its interval is shown, such as
    "≤ 0.013". An error that is only rounding counts as 0. A value that would round to 0 keeps two
    significant digits.
    """
    if found.se is None:
        return number(found.value, digits), ""
    if found.se > ROUNDING * abs(found.value):
        shown = error_decimals(found.se)
        return number(found.value, shown), f"± {number(found.se, shown)}"
    low, high = found.low, found.high
    if low is None or high is None or not low < high or not math.isfinite(high - low):
        return number(found.value, digits), "± 0"
    shown = error_decimals(high - low)
    end = f"≤ {number(high, shown)}" if found.value - low < high - found.value else ""
    return number(found.value, shown), end or f"≥ {number(low, shown)}"
