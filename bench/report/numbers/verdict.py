"""A paragraph that says of a data set what the intervals support, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiment.formatting import decimals, with_error
from bench.report.numbers.cells import Cell, restricted
from bench.report.numbers.comparison import Comparison, cost_columns
from bench.report.numbers.entries import Entry, Sides, holm
from bench.report.numbers.frame import Column, Data, Series
from bench.report.numbers.guiding import risen
from bench.report.numbers.operating import running
from bench.report.numbers.ranking import LEVEL, Place, Ranking
from bench.report.numbers.words import numbers

WITHIN = 0.10
"""How far above its best a distance may be at the highest scale to count as kept."""
MOST_NAMES, MOST_WITHOUT = 4, 10


def verdict(data: Data, comparison: Comparison) -> str:
    """The paragraph: best lines, what high scales do, costs, precision with recall."""
    columns = [c for c in cost_columns(data, comparison.dataset) if c in comparison.rankings]
    columns = columns or list(comparison.rankings)[:1]
    first = comparison.rankings[columns[0]]
    sentences = [_best(first), *_cost(first), *_mean(first), *_highest(data, first)]
    sentences += [_best(comparison.rankings[column]) for column in columns[1:]]
    for (precision, recall), places in list(comparison.areas.items())[:1]:
        if len(places) > 1:
            name = f"By the area of {precision.label} and {recall.label}"
            features = f"({precision.extractor or 'no'} features)"
            sentences.append(_leading(f"{name} {features}", places))
        sentences += _rise(data, precision)
    sentences.append(
        "Significant means at 5% for these weights, adjusted for the number of lines or of their "
        "pairs (Holm)."
    )
    return " ".join(sentences)


def named(lines: Sequence[Series], most: int = MOST_NAMES) -> str:
    """Labels in a sentence, at most so many of them."""
    labels = [f"“{s.label}”" for s in lines]
    if len(labels) > most:
        rest = len(labels) - most + 1
        labels = [*labels[: most - 1], f"{rest} others"]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _best(ranking: Ranking) -> str:
    points = ranking.points
    chosen = {points[p.series].held_out for p in ranking.best if points[p.series].scales > 1}
    how = {
        frozenset({True}): "chosen by other sampling seeds",
        frozenset({False}): "chosen by the same values, hence optimistic",
        frozenset({True, False}): "for some lines chosen by the same values, hence optimistic",
    }.get(frozenset(chosen), "")
    head = f"{ranking.column.title}, every line at its best scale" + (f" ({how})" if how else "")
    at = {s: f"g = {point.guidance:g}: " for s, point in points.items()}
    return _leading(head, ranking.best, at)


def _leading(head: str, places: Sequence[Place], at: dict[Series, str] | None = None) -> str:
    """Which line leads, or that none does."""
    leader, others = places[0], places[1:]
    known = [p for p in others if p.p is not None]
    top = f"“{leader.series.label}” ({(at or {}).get(leader.series, '')}{_value(leader)})"
    if not known:
        return (
            f"{head}: the best value is that of {top}; the values have no errors to compare "
            "them by, so nothing is claimed."
        )
    tied = [p for p in others if not p.is_behind]
    behind = [p for p in others if p.is_behind]
    if not tied:
        second = behind[0]
        next_to = f"“{second.series.label}” ({(at or {}).get(second.series, '')}{_value(second)})"
        if len(behind) == 1:
            return f"{head}: {top} is significantly ahead of the other line, {next_to}."
        count = "both" if len(behind) == 2 else f"all {len(behind)}"
        return (
            f"{head}: {top} is significantly ahead of {count} other lines, the next of them "
            f"{next_to}."
        )
    if not behind:
        return (
            f"{head}: no line can be told from the one with the best value, {top}, so none is "
            "claimed to be best."
        )
    rest = f"{len(behind)} other line{'' if len(behind) == 1 else 's'}"
    verb = "is" if len(behind) == 1 else "are"
    return (
        f"{head}: {top} has the best value, but {named([p.series for p in tied])} cannot be told "
        f"from it; the {rest} {verb} significantly behind."
    )


def _value(place: Place) -> str:
    found = place.entry.estimate
    text, error = with_error(found, decimals([found.value]))
    return f"{text} {error}".strip()


def _mean(ranking: Ranking) -> list[str]:
    if not ranking.mean:
        return []
    scales = numbers(ranking.scales)
    head = f"Averaged over g = {scales}, for the {len(ranking.mean)} lines that have all of these"
    return [_leading(head, ranking.mean)]


def _cost(ranking: Ranking) -> list[str]:
    """The cheapest of those that cannot be told from the best, at their best scales."""
    top = [p.series for p in ranking.best if not p.is_behind]
    if any(p.p is None for p in ranking.best[1:]):
        return []
    least = min(ranking.points[s].nfe for s in top)
    cheapest = [s for s in top if ranking.points[s].nfe == least]
    cost = f"{least} network evaluation{'' if least == 1 else 's'} per image"
    seconds = {ranking.points[s].seconds for s in cheapest} - {0.0}
    if seconds:
        ends = dict.fromkeys(f"{v:.2g}" for v in (min(seconds), max(seconds)))
        cost += f" ({' to '.join(ends)} s)"
    if len(top) == 1:
        return [f"It takes {cost} at that scale."]
    its = "its best scale is" if len(cheapest) == 1 else "their best scales are"
    return [f"Of these the cheapest at {its} {named(cheapest)}, with {cost}."]


def _rise(data: Data, precision: Column) -> list[str]:
    """Which lines guide: a distance that stays low may be that of a rule that does nothing."""
    rises = risen(data, precision)
    if not rises:
        return []
    sure = [s for s, rise in rises.items() if rise]
    rest = [s for s, rise in rises.items() if not rise]
    head = f"{precision.title} rises significantly above its value at g = 1 at some scale"
    of = f"{len(rises)} guided line{'' if len(rises) == 1 else 's'}"
    if not rest:
        return [f"{head} for {'it' if len(rises) == 1 else f'all {of}'}."]
    if not sure:
        return [f"{head} for none of {of}: no benefit of guidance in it is shown."]
    return [
        f"{head} for {len(sure)} of {of}; for {named(rest, MOST_WITHOUT)} no such rise is shown, "
        "so that a low distance at high g may be that of guidance which hardly acts."
    ]


def _highest(data: Data, ranking: Ranking) -> list[str]:
    """Which lines keep a distance near their own best at the highest scale that most have."""
    column = ranking.column
    if not column.about.ratios or len(ranking.scales) < 2:
        return []
    g = max(ranking.scales)
    found = {
        s: answer
        for s in ranking.points
        if (answer := _excess(running(data, column, s), ranking, s, g)) is not None
    }
    if not found:
        return []
    adjusted = holm([p for _, p in found.values()])
    sure = [s for s, p in zip(found, adjusted, strict=True) if p < LEVEL]
    kept = [s for s in sure if found[s][0]]
    beyond = len(sure) - len(kept)
    unknown = len(found) - len(sure)
    near = f"{column.label} within {WITHIN:.0%}"
    if kept:
        one = len(kept) == 1
        start = f"{named(kept)} keep{'s' if one else ''} {near} of {'its' if one else 'their'} best"
    else:
        start = f"no line can be said to keep {near} of its best"
    lines = f"of {len(found)} guided line{'' if len(found) == 1 else 's'}"
    tail = [f"{beyond} {'is' if beyond == 1 else 'are'} significantly beyond"] if beyond else []
    tail += [f"{unknown} {'is' if unknown == 1 else 'are'} undecided"] if unknown else []
    end = f"; {lines}, {' and '.join(tail)}" if tail else ""
    return [f"At g = {g:g}, the highest, {start}{end}."]


def _excess(
    cells: dict[float, Cell], ranking: Ranking, series: Series, g: float
) -> tuple[bool, float] | None:
    """Whether a line keeps within its allowance at `g`, and p; None where that is not known.

    It does if it is within the allowance of its value at every other scale, and p is the largest
    of these: which of them is the best needs no choice then. Else p is that of exceeding the one at
    the best scale.
    """
    if g not in cells or len(cells) < 2:
        return None
    seeds = ranking.points[series].entry.seeds
    kept = {h: restricted(cell, seeds) for h, cell in cells.items()}
    if not all(cell.found for cell in kept.values()):
        return None
    tests = {h: Entry(series, ((kept[g], kept[h]),), _over) for h in kept if h != g}
    ps = {h: entry.p for h, entry in tests.items()}
    known = {h: p for h, p in ps.items() if p is not None}
    if len(known) < len(ps):
        return None
    if all(entry.estimate.value < 0 for entry in tests.values()):
        return True, max(known.values())
    best = ranking.points[series].guidance
    beyond = best != g and tests[best].estimate.value > 0
    return False, known[best] if beyond else 1.0


def _over(sides: Sides) -> float:
    there, other = sides[0]
    return there - (1 + WITHIN) * other
