"""Which lines stand in the figures of methods, and which in those of guidance rules."""

from __future__ import annotations

from dataclasses import replace

from bench.report.numbers.frame import Data, Series


def base_of(series: Series) -> Series:
    """The line of the same method, run and steps under CFG."""
    return replace(series, rule="")


def plain(data: Data, dataset: str) -> tuple[Series, ...]:
    """The lines of methods that are guided by CFG or in their own way.

    A method that was swept under other rules only is there with those.
    """
    lines = data.series(dataset)
    # The rows without guidance alone are no line that rules could be compared with.
    guided = {s for s in lines if not s.rule and any(r.guidance != 1 for r in data.rows_of(s))}
    ruled_only = {base_of(s) for s in lines if s.rule} - guided
    return tuple(s for s in lines if (base_of(s) in ruled_only) == bool(s.rule))


def ruled(data: Data, dataset: str) -> dict[Series, tuple[Series, ...]]:
    """The lines of rules by the line under CFG that they vary; that need not have rows."""
    found: dict[Series, tuple[Series, ...]] = {}
    for series in data.series(dataset):
        if series.rule:
            found[base_of(series)] = (*found.get(base_of(series), ()), series)
    return found
