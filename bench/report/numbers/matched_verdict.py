"""The statement on a data set at equal outcome: which lines beat CFG, and which hardly guide."""

from __future__ import annotations

from collections.abc import Iterable

from bench.experiment.formatting import error_decimals, number
from bench.report.numbers.columns import Column
from bench.report.numbers.matched import Kind, Matched, Standing
from bench.report.numbers.verdict import listed, named
from bench.system.errors import counted

MOST = 3
"""Lines named with their differences."""


def matched_verdict(matched: Matched) -> str:
    """Sentences on the leading measure, by the outcome that finds a scale for the most lines."""
    outcome, judged = matched.chosen, matched.leading
    found = list(matched.standings(outcome, judged).values())
    kinds: dict[Kind, list[Standing]] = {}
    for standing in found:
        kinds.setdefault(standing.kind, []).append(standing)
    head = f"{judged.title} against CFG at the scale g* of equal {outcome.title}"
    sentences = []
    words: dict[Kind, str] = {
        "better": "better than",
        "worse": "worse than",
        "both": "better than, and at other scales worse than,",
    }
    for kind, how in words.items():
        if some := _in_order(kinds.get(kind, ())):
            verb = "is" if len(some) == 1 else "are"
            sentences.append(f"{_with_gaps(some, judged)} {verb} significantly {how} CFG")
    same, idle = kinds.get("same", []), kinds.get("idle", [])
    if same:
        verb = "does" if len(same) == 1 else "do"
        sentences.append(
            f"{_names(same)} {verb} not differ significantly from CFG at another scale"
        )
    if idle:
        verb = "does" if len(idle) == 1 else "do"
        sentences.append(f"{_names(idle)} {verb} not differ from CFG without guidance")
    if none := kinds.get("none", []):
        sentences.append(f"for {_names(none)} there is no single scale of equal outcome")
    text = f"{head}: {'; '.join(sentences)}."
    loose = [s for s in found if s.provisional and s.kind in ("better", "worse", "both")]
    if loose:
        text += (
            f" Provisional for {_names(loose)}: the value of CFG there is interpolated; bench "
            "sweep --matched runs it."
        )
    return text


def _in_order(found: Iterable[Standing]) -> list[Standing]:
    """Standings with a duel, the most certain first."""
    return sorted((s for s in found if s.best is not None), key=lambda s: s.p or 0.0)


def _names(found: Iterable[Standing]) -> str:
    return named([s.series for s in found])


def _with_gaps(found: list[Standing], judged: Column) -> str:
    shown = []
    for standing in found[:MOST]:
        duel = standing.best
        assert duel is not None
        gap, match = duel.gaps[judged], duel.match
        digits = error_decimals(gap.se) if gap.se else 3
        sign = "+" if gap.value > 0 else ""
        value = f"{sign}{number(gap.value, digits)} ± {number(gap.se or 0.0, digits)}"
        where = f"at g = {duel.guidance:g}, g* = {match.scale:.2f}"
        shown.append(f"“{standing.series.label}” ({value} {where})")
    if len(found) > MOST:
        rest = len(found) - MOST
        shown.append(counted(rest, "other"))
    return listed(shown)
