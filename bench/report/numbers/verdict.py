"""The statements on a data set: what is significant, and what its rows cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.experiment.formatting import decimals, duration, with_error
from bench.report.numbers.cells import Cell, restricted
from bench.report.numbers.columns import Column
from bench.report.numbers.comparison import Comparison, cost_columns
from bench.report.numbers.entries import Entry, Sides, average, contrast, first, holm
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR, numbers
from bench.report.numbers.pareto import borrowed, hypervolumes
from bench.report.numbers.ranking import LEVEL, Place, Ranking, rank
from bench.system.errors import counted

WITHIN = 0.10
"""How far above its best a distance at the highest scale may be to count as kept."""
MOST_NAMES, MOST_IDLE = 4, 10


def verdict(data: Data, comparison: Comparison) -> list[str]:
    """Statements: best lines, means, high scales, precision with recall, cost, and limits.

    Statements that the rows cannot support are skipped.
    """
    # Columns of more samples come first; those of fewer, such as of a trial, open nothing.
    most: dict[tuple[str, str], int] = {}
    for column in comparison.rankings:
        most.setdefault((column.metric, column.extractor), column.n)
    columns = [
        c for c in cost_columns(data, comparison.dataset)
        if c in comparison.rankings and c.n == most[c.metric, c.extractor]
    ]  # fmt: skip
    columns = columns or list(comparison.rankings)[:1]
    leading = comparison.rankings[columns[0]]
    precision = next((pair[0] for pair in comparison.areas), None)
    rises = risen(data, precision) if precision else {}
    found = (
        [text for column in columns for text in _best(data, comparison.rankings[column])],
        _mean(leading),
        _highest(data, leading, rises),
        [*_area(data, comparison), *(_rise(precision, rises) if precision else ())],
        _cost(data, leading),
        _limits(data, comparison.dataset),
    )
    return [" ".join(sentences) for sentences in found if sentences]


def named(lines: Sequence[Series], most: int = MOST_NAMES) -> str:
    """Labels in a sentence, at most `most` of them."""
    labels = [f"“{s.label}”" for s in lines]
    if len(labels) > most:
        rest = len(labels) - most + 1
        labels = [*labels[: most - 1], f"{rest} others"]
    return listed(labels)


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence with commas and "and"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _acting(data: Data, ranking: Ranking) -> list[Place]:
    """The lines at their best scales, without rules at g = 1: no rule acts there."""
    points = ranking.points
    return [p for p in ranking.best if not borrowed(data, p.series, points[p.series].guidance)]


def _best(data: Data, ranking: Ranking) -> list[str]:
    points = ranking.points
    places = _acting(data, ranking)
    chosen = {points[p.series].held_out for p in places if points[p.series].scales > 1}
    how = {
        frozenset({True}): "chosen by other sampling seeds",
        frozenset({False}): "chosen by the same values, hence optimistic",
        frozenset({True, False}): "for some lines chosen by the same values, hence optimistic",
    }.get(frozenset(chosen), "")
    head = f"{ranking.column.title}, every line at its best scale" + (f" ({how})" if how else "")
    at = {s: f"g = {point.guidance:g}: " for s, point in points.items()}
    sentences = [_leading(head, places, at)] if len(places) > 1 else []
    if idle := len(ranking.best) - len(places):
        lines = "1 line of a rule" if idle == 1 else f"{idle} lines of rules"
        sentences.append(f"For {lines} the best scale is g = 1, where no rule acts.")
    return sentences


def _leading(head: str, places: Sequence[Place], at: dict[Series, str] | None = None) -> str:
    """A sentence on whether a line leads, and which."""

    def with_value(place: Place) -> str:
        found = place.entry.estimate
        value = " ".join(with_error(found, decimals([found.value]))).strip()
        return f"“{place.series.label}” ({(at or {}).get(place.series, '')}{value})"

    others = places[1:]
    top = with_value(places[0])
    if all(p.p is None for p in others):
        return (
            f"{head}: {top} has the best value; the values have no errors to compare them by, so "
            "nothing is claimed."
        )
    tied = [p.series for p in others if not p.is_worse]
    worse = [p for p in others if p.is_worse]
    if not worse:
        return (
            f"{head}: {top} has the best value, but no other line differs significantly from it, "
            "so none is claimed to be best."
        )
    if not tied:
        count = {1: "the other line,", 2: "both other lines, then"}
        than = count.get(len(worse), f"all {len(worse)} other lines, then")
        return f"{head}: {top} is significantly better than {than} {with_value(worse[0])}."
    one = len(worse) == 1
    return (
        f"{head}: {top} has the best value, but {named(tied)} "
        f"{'does' if len(tied) == 1 else 'do'} not differ significantly from it; the "
        f"{'other line is' if one else f'{len(worse)} other lines are'} significantly worse."
    )


def _mean(ranking: Ranking) -> list[str]:
    if not ranking.mean:
        return []
    scales = numbers(ranking.scales)
    head = f"Averaged over g = {scales}, for the {len(ranking.mean)} lines that have all of these"
    return [_leading(head, ranking.mean)]


def _cost(data: Data, ranking: Ranking) -> list[str]:
    """The cheapest of the lines that are not worse than the best, at their best scales."""
    top = [p.series for p in _acting(data, ranking) if not p.is_worse]
    if any(p.p is None for p in ranking.best[1:]):
        return []
    least = min(ranking.points[s].nfe for s in top)
    cheapest = [s for s in top if ranking.points[s].nfe == least]
    cost = f"{counted(least, 'network evaluation')} per image"
    seconds = {ranking.points[s].seconds for s in cheapest} - {0.0}
    if seconds:
        ends = dict.fromkeys(map(duration, (min(seconds), max(seconds))))
        cost += f" ({' to '.join(ends)})"
    leader = ranking.best[0].series
    if len(top) == 1:
        return [f"{named(top)} takes {cost} at its best scale."]
    its = "its best scale is" if len(cheapest) == 1 else "their best scales are"
    sentence = f"Of the {len(top)} lines that may be best, the cheapest at {its} {named(cheapest)}"
    other = ranking.points[leader].nfe
    than = "" if other == least else f"; {named([leader])} takes {other}"
    return [f"{sentence}, with {cost}{than}."]


def _area(data: Data, comparison: Comparison) -> list[str]:
    """Which line leads by the area of precision and recall over the scales that most lines have."""
    if not any(comparison.areas.values()):
        return []
    (precision, recall), places = next(iter(comparison.areas.items()))
    have = {
        p.series: data.cells(precision, p.series).keys() & data.cells(recall, p.series).keys()
        for p in places
    }
    count = Counter(map(frozenset, have.values()))
    common = max(count, key=lambda scales: (count[scales], len(scales), sorted(scales)))
    entries = hypervolumes(data, precision, recall, common)
    if len(entries) < 2:
        return []
    alike = places if len(count) == 1 else rank(entries, "higher")
    name = f"By the area of {precision.label} and {recall.label}"
    over = f"({precision.extractor or 'no'} features) over g = {numbers(common)}"
    sentences = [_leading(f"{name} {over}", alike)]
    if left := [s for s, scales in have.items() if not scales >= common]:
        verb, is_ = ("lacks", "is") if len(left) == 1 else ("lack", "are")
        sentences.append(f"{named(left)} {verb} some of these scales and {is_} not compared by it.")
    return sentences


def _rise(precision: Column, rises: Mapping[Series, bool]) -> list[str]:
    """For how many lines precision rises: guidance that does nothing also keeps a low distance."""
    sure = [s for s, rise in rises.items() if rise]
    if not rises:
        return []
    head = f"{precision.title} rises significantly above its value at g = 1 at some scale"
    of = counted(len(rises), "guided line")
    if len(sure) == len(rises):
        return [f"{head} for {'it' if len(rises) == 1 else f'all {of}'}."]
    if not sure:
        return [f"{head} for none of {of}, so guidance shows no benefit in it."]
    return [f"{head} for {len(sure)} of {of}: {named(sure)}."]


def _highest(data: Data, ranking: Ranking, rises: Mapping[Series, bool]) -> list[str]:
    """What the highest common scale does to a distance, and for which lines."""
    column = ranking.column
    if not column.about.ratios or len(ranking.scales) < 2:
        return []
    g = max(ranking.scales)
    found = {
        s: answer
        for s in ranking.points
        if (answer := _excess(data.running(column, s), ranking, s, g)) is not None
    }
    if not found:
        return []
    adjusted = holm([p for _, p in found.values()])
    sure = [s for s, p in zip(found, adjusted, strict=True) if p < LEVEL]
    above = [s for s in sure if not found[s][0]]
    flat = [s for s in sure if found[s][0]]
    poor = [s for s in flat if _is_poor(data, ranking, s, g, above)]
    kept = [s for s in flat if s not in poor]
    near = f"{column.label} within {WITHIN:.0%}"
    start = f"no line is shown to keep {near} of its best"
    if kept:
        verb, its = ("keeps", "its") if len(kept) == 1 else ("keep", "their")
        start = f"{named(kept)} {verb} {near} of {its} best"
    rest = (
        (len(above), "significantly above that"),
        (len(poor), "flat but worse throughout"),
        (len(found) - len(sure), "undecided"),
    )
    tail = " and ".join(f"{n} {'is' if n == 1 else 'are'} {what}" for n, what in rest if n)
    lines = f"of {counted(len(found), 'guided line')}"
    sentences = [f"At g = {g:g}, the highest, {start}{f'; {lines}, {tail}' if tail else ''}."]
    if poor:
        verb, its = ("is", "its") if len(poor) == 1 else ("are", "their")
        sentences.append(
            f"At {its} best {named(poor)} {verb} significantly worse than all lines above theirs "
            f"at g = {g:g}: a flat curve is no merit there, an untrained network has one too."
        )
    values = {s: {h: c.mean for h, c in data.running(column, s).items()} for s in above}
    best = {s: v[ranking.points[s].guidance] for s, v in values.items()}
    times = {s: v[g] / best[s] for s, v in values.items() if best[s] > 0}
    if times:
        worst = sorted(times, key=lambda s: -times[s])[:3]
        shown = [f"“{s.label}” ({times[s]:.{0 if times[s] >= 10 else 1}f} times)" for s in worst]
        verb, its = ("is", "its") if len(worst) == 1 else ("are", "their")
        sentences.append(f"Furthest above {its} best {verb} {listed(shown)}.")
    if idle := [s for s in kept if rises.get(s) is False]:
        verb = "shows" if len(idle) == 1 else "show"
        sentences.append(
            f"{named(idle, MOST_IDLE)} {verb} no significant rise of precision at any scale: "
            "guidance may hardly act there."
        )
    return sentences


def _limits(data: Data, dataset: str) -> list[str]:
    """What the rows cannot tell."""
    rows = [r for r in data.rows if r.dataset == dataset and r.method != FLOOR]
    seeds: dict[str, set[int]] = {}
    for row in rows:
        if row.checkpoint:
            seeds.setdefault(row.method, set()).add(row.train_seed)
    single = [method for method, some in seeds.items() if len(some) == 1]
    sentences = []
    if single:
        which = "every trained method" if len(single) == len(seeds) else ", ".join(single)
        sentences.append(
            f"There is one training run of {which}, so differences may be due to the chance of "
            "training."
        )
    for status, verb in (("diverged", "diverged"), ("failed", "failed")):
        if count := sum(row.status == status for row in rows):
            have = "has" if count == 1 else "have"
            sentences.append(f"{counted(count, 'cell')} {verb} and {have} no value.")
    sentences.append(
        "Significant means at 5% for these weights, adjusted for the number of lines or of their "
        "pairs (Holm)."
    )
    return sentences


def _excess(
    cells: dict[float, Cell], ranking: Ranking, series: Series, g: float
) -> tuple[bool, float] | None:
    """Whether a line is within the allowance of its best value at `g`, and p; None if unknown.

    It is if it is within the allowance of its value at every other scale; p is the largest of
    these, so the best scale need not be chosen. Otherwise p is that of being above the allowance of
    the value at the best scale.
    """
    if g not in cells or len(cells) < 2:
        return None
    seeds = ranking.points[series].entry.seeds
    kept = {h: restricted(cell, seeds) for h, cell in cells.items()}
    if not all(cell.found for cell in kept.values()):
        return None
    tests = {h: Entry(series, ((kept[g], kept[h]),), _over) for h in kept if h != g}
    known = {h: p for h, entry in tests.items() if (p := entry.p) is not None}
    if len(known) < len(tests):
        return None
    if all(entry.estimate.value < 0 for entry in tests.values()):
        return True, max(known.values())
    best = ranking.points[series].guidance
    beyond = best != g and tests[best].estimate.value > 0
    return False, known[best] if beyond else 1.0


def _is_poor(
    data: Data, ranking: Ranking, series: Series, g: float, others: Sequence[Series]
) -> bool:
    """Whether a line at its best scale has significantly larger distances than others at `g`."""
    own = ranking.points[series].entry
    cells = [data.running(ranking.column, other)[g] for other in others]
    gaps = [contrast(own, Entry(s, ((c,),), first)) for s, c in zip(others, cells, strict=True)]
    return bool(gaps) and all(gap and gap.value > 0 and gap.p < LEVEL for gap in gaps)


def _over(sides: Sides) -> float:
    there, other = sides[0]
    return there - (1 + WITHIN) * other


def risen(data: Data, precision: Column) -> dict[Series, bool]:
    """For each guided line: whether precision at any scale is significantly above that at g = 1.

    Differences are paired at the sampling seeds that all scales of a line have; p is adjusted for
    all scales of all lines (Holm). Lines without a value at g = 1 or without errors are skipped.
    """
    tests: dict[tuple[Series, float], tuple[float, float]] = {}
    for series in data.series(precision.dataset):
        cells = data.running(precision, series)
        if 1.0 not in cells or len(cells) < 2:
            continue
        seeds = Entry(series, (tuple(cells.values()),), average).seeds
        kept = {g: restricted(cell, seeds) for g, cell in cells.items()}
        if not seeds:
            continue
        for g in kept:
            entry = Entry(series, ((kept[g], kept[1.0]),), lambda sides: sides[0][0] - sides[0][1])
            if g != 1.0 and entry.p is not None:
                tests[series, g] = entry.estimate.value, entry.p
    adjusted = holm([p for _, p in tests.values()])
    found: dict[Series, bool] = {}
    for ((series, _), (gain, _)), p in zip(tests.items(), adjusted, strict=True):
        found[series] = found.get(series, False) or (gain > 0 and p < LEVEL)
    return found
