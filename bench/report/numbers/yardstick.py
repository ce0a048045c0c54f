"""The error of a rule and the error of a network: the closed-form denoiser as the yardstick.

On data of known density the exact denoiser runs under every rule. Its distance to the target is the
error of the rule and the sampler. The distance of a trained network under the same rule, at the
same steps and from the same noise, less that is the error of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.experiment.rows import Z95, Density, Points, Preview
from bench.report.numbers.cells import Cell, exact_mean, pair
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from metrics.base import Estimate, ExactMixture
from metrics.errors import paired_difference, seeds_se
from metrics.tilt import tilt_distance

EXACT = "oracle"
"""The method with the closed-form denoiser."""
METRIC = "w1"
LARGEST = 1e9
"""Of positions and spreads of a density, so that squares and inverses are finite."""
CFG = "cfg"
FIELDS = (
    *("dataset", "rule", "method", "steps", "guidance", "n", "rule_error", "rule_error_se"),
    *("total", "total_se", "network", "network_se", "low", "high", "seeds", "error_of", "tilt"),
)


@dataclass(frozen=True)
class Share:
    """The errors of a line at a scale: of the rule, in total, and of the network.

    `error_of` says how the error of `network` was obtained, '' if it has none.
    """

    series: Series
    exact: Series
    guidance: float
    rule: Estimate
    total: Estimate
    network: Estimate
    seeds: int
    error_of: str


@dataclass(frozen=True)
class Yardstick:
    """One data set: the lines of the exact denoiser, and the networks compared with each."""

    column: Column
    guidance: tuple[float, ...]
    exact: tuple[Series, ...]
    shares: tuple[Share, ...]
    cells: dict[tuple[Series, float], Cell]
    tilt: dict[float, float]


def make_yardsticks(data: Data) -> tuple[Yardstick, ...]:
    """A yardstick for every data set and number of samples with rows of the exact denoiser."""
    found = []
    for column in data.columns:
        if column.metric != METRIC:
            continue
        lines = data.series(column.dataset)
        cells = {(s, g): cell for s in lines for g, cell in data.cells(column, s).items()}
        exact = tuple(dict.fromkeys(s for s, _ in cells if s.method == EXACT))
        if exact:
            guidance = tuple(sorted({g for s, g in cells if s in exact}))
            shares = tuple(_shares(cells, exact))
            tilt = tilts(data, column.dataset, guidance)
            found.append(Yardstick(column, guidance, exact, shares, cells, tilt))
    return tuple(found)


def rule_of(series: Series) -> str:
    """The name of a line's rule."""
    return series.rule or CFG


def partners(series: Series, lines: Sequence[Series]) -> list[Series]:
    """The lines of networks under the same rule, with as many steps."""
    same = (series.dataset, series.rule, series.steps)
    return [
        s for s in dict.fromkeys(lines)
        if s.method != EXACT and (s.dataset, s.rule, s.steps) == same
    ]  # fmt: skip


def _shares(cells: dict[tuple[Series, float], Cell], exact: Sequence[Series]) -> Iterator[Share]:
    for line in exact:
        for other in partners(line, [s for s, _ in cells]):
            for g in sorted(g for s, g in cells if s == other):
                if (line, g) in cells:
                    ours, theirs = cells[line, g], cells[other, g]
                    share = network_share(theirs, ours)
                    yield Share(other, line, g, ours.estimate, theirs.estimate, *share)


def network_share(total: Cell, exact: Cell) -> tuple[Estimate, int, str]:
    """Total less exact over their common sampling seeds, the number of seeds, and `error_of`.

    The error is over several training runs, or the paired jackknife's of one run.
    """
    known: dict[int, list[float]] = {}
    for row, value in exact.found:
        known.setdefault(row.seed, []).append(value.value)
    runs: dict[tuple[str, str], list[float]] = {}
    seeds = set()
    for row, value in total.found:
        if row.seed in known:
            seeds.add(row.seed)
            less = value.value - exact_mean(known[row.seed])
            runs.setdefault((row.experiment, row.run), []).append(less)
    if len(runs) > 1:
        found = seeds_se([exact_mean(values) for values in runs.values()])
        return found, len(seeds), "training runs"
    both = pair(total, exact)
    if both is None:
        # Without a common seed there is no pairing: the difference of the means.
        less = exact_mean(next(iter(runs.values()))) if runs else total.mean - exact.mean
        return Estimate(less), len(seeds), ""
    ours, theirs, count = both
    return paired_difference(ours, theirs), count, "paired jackknife"


def tilts(data: Data, dataset: str, scales: Sequence[float]) -> dict[float, float]:
    """Distance of the g-tilted density to the target; empty if no row states the density."""
    exact = known_density(r.preview for r in data.rows if r.dataset == dataset)
    if exact is None:
        return {}
    found: dict[float, float] = {}
    for g in scales:
        try:
            # The last digits of sums over a grid differ between machines.
            found[g] = round(tilt_distance(exact, g), 9)
        except ValueError:  # a scale whose density fits on no grid
            continue
    return found


def known_density(previews: Iterator[Preview | None]) -> ExactMixture | None:
    """The density stored with samples of toy data; None if its numbers are out of bounds."""
    for preview in previews:
        if isinstance(preview, Density | Points):
            modes = tuple(np.asarray(m, dtype=float) for m in preview.means)
            if isinstance(preview, Density):
                modes = tuple(m[:, None] for m in modes)
            usual = 1 / LARGEST <= preview.std <= LARGEST
            usual &= all(len(m) > 0 and bool((abs(m) <= LARGEST).all()) for m in modes)
            return ExactMixture(modes, preview.std) if usual else None
    return None


def is_significant(found: Estimate) -> bool:
    """Whether 0 is outside the 95% interval; False without an error."""
    low, high = interval(found)
    return low is not None and high is not None and not low <= 0 <= high


def interval(found: Estimate) -> tuple[float | None, float | None]:
    """The 95% interval."""
    if found.low is not None or found.se is None:
        return found.low, found.high
    return found.value - Z95 * found.se, found.value + Z95 * found.se


def yardstick_frame(yardsticks: Sequence[Yardstick]) -> pd.DataFrame:
    """One line per network and scale; those of a rule without a network have no total."""
    records: list[tuple[object, ...]] = []
    for found in yardsticks:
        column = found.column
        for line, g in [(s, g) for s in found.exact for g in found.guidance]:
            if (line, g) not in found.cells:
                continue
            own = found.cells[line, g].estimate
            some = [s for s in found.shares if (s.exact, s.guidance) == (line, g)]
            for share in (*some,) or (None,):
                name = EXACT if share is None else named(share.series)
                place = (column.dataset, rule_of(line), name, line.steps, g, column.n)
                record = (*place, own.value, own.se, *_record(share), found.tilt.get(g))
                records.append(record)
    return pd.DataFrame.from_records(records, columns=list(FIELDS))


def named(series: Series) -> str:
    """The method of a line, with its run if there are several."""
    return series.method + (f" [{series.run}]" if series.run else "")


def _record(share: Share | None) -> tuple[object, ...]:
    if share is None:
        return (*[None] * 7, "")
    low, high = interval(share.network)
    return (
        *(share.total.value, share.total.se, share.network.value, share.network.se, low, high),
        *(share.seeds, share.error_of),
    )
