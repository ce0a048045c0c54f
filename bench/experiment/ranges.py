"""Ranges on the command line: `1..13`, `1..13:2`, `1,1.5,2`."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

from bench.experiment.place import SCALE_MOST
from bench.system.errors import UserError

MOST = 1000
EXACT_MOST = 1 << 53
"""Larger whole numbers are not exact as float."""
_HELP = "write 1..13, 1..13:2 or 1,1.5,2"


def parse_range(text: str, what: str = "range", most: float = SCALE_MOST) -> tuple[float, ...]:
    """The distinct numbers of a range, ascending; UserError beyond +- `most`.

    `a..b` counts from a to b by 1, both included; `a..b:step` by `step`. Commas join parts.
    Arithmetic is decimal: 1..2:0.1 has eleven numbers, among them 1.1.
    """
    found: set[Decimal] = set()
    for part in text.split(","):
        found.update(_part(part.strip(), text, what))
        if len(found) > MOST:
            raise UserError(f"{what} {text!r} has more than {MOST} values.", code=2)
        if found and max(map(abs, found)) > most:
            raise UserError(f"{what} {text!r} has a number beyond +-{most:,.0f}.", code=2)
    return tuple(sorted({float(value) for value in found}))


def parse_ints(text: str, what: str, least: int = 0, most: int = EXACT_MOST) -> tuple[int, ...]:
    """The whole numbers of a range; UserError for others and outside of [least, most]."""
    values = parse_range(text, what, math.inf)
    if any(value != int(value) or not least <= value <= most for value in values):
        ends = f"from {least} up" if most == EXACT_MOST else f"from {least} to {most:,}"
        raise UserError(f"{what} {text!r} must be whole numbers {ends}.", code=2)
    return tuple(int(value) for value in values)


def _part(part: str, text: str, what: str) -> list[Decimal]:
    ends, colon, step_text = part.partition(":")
    first_text, dots, last_text = ends.partition("..")
    if colon and not dots:
        raise UserError(f"{what} {text!r}: a step needs a range before it; {_HELP}.", code=2)
    first = _number(first_text, text, what)
    if not dots:
        return [first]
    last = _number(last_text, text, what)
    step = _number(step_text, text, what) if colon else Decimal(1)
    if step <= 0:
        raise UserError(f"{what} {text!r}: the step must be above 0, got {step}.", code=2)
    if last < first:
        raise UserError(f"{what} {text!r} runs backwards, from {first} to {last}.", code=2)
    # Compared before the division, whose result may exceed a Decimal.
    if last - first >= MOST * step:
        raise UserError(f"{what} {text!r} has more than {MOST} values.", code=2)
    count = int((last - first) / step) + 1
    return [first + i * step for i in range(count)]


def _number(text: str, whole: str, what: str) -> Decimal:
    try:
        value = Decimal(text.strip())
        if value.is_finite() and math.isfinite(float(value)):
            return value
    except InvalidOperation:
        pass
    raise UserError(f"{what} {whole!r}: {text!r} is not a number; {_HELP}.", code=2)
