"""Whether guidance that is learnt in training beats CFG with the best repaired rule.

    python -m benchmarks.findings.learnt [EXPERIMENT ...]

An experiment, by default that of the suite `reference`, has the cells of the methods and those of
the rules of `edm`; in one without rules the best of the first experiment are swept. Every line of a
few-step method or of a method with guidance of its own is compared with all rules at the scale at
which the rule moves the samples as far from g = 1: first with rules that need up to twice the
evaluations of CFG, then with rules that need no more than the line. For the latter the best rules
are swept at fewer steps.

The best rule is not chosen and then tested, which would favour the rules. With the loss d_r of the
line against rule r (positive: the line is worse), the loss against the best rule is max d_r. Its
interval is from the largest of the lower ends of all d_r, which hold at once (Bonferroni over all
rules), to the largest of their upper ends: whichever rule is best, it contains the loss at 95%.
Errors are of the samples (paired jackknife); with several training seeds they are over those.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy import stats

import bench
from bench.experiment.place import Experiment
from bench.experiment.rows import Row, read_rows
from bench.experiment.suite import TUNING_SEEDS
from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series, prepare
from bench.report.numbers.match import Curve, Level, find_match, gap_at, level, make_curve
from benchmarks.findings.common import RESULTS, pairs, write
from benchmarks.findings.variants import EXTRACTOR
from methods import METHODS

NETWORK, CFG = "edm", "cfg"
"""The method whose network the rules guide, and the name of no other rule."""
VARIETY = ("precision_k3", "recall_k3")
SCALES = (2.0, 4.0, 7.0, 13.0)
"""The scales of the lines."""
SWEPT = "1,2,4,7"
BEST = 4
"""Rules that are swept at fewer steps."""
SAME_COST = 1.1
LEVEL = 0.05
POOR = 4
"""Rules are left out whose loss has an error of so many times the median of all rules."""
WEAK = "-weak"
"""How the runs of the weaker networks end."""
Budget = Literal["usual steps", "equal evaluations"]
USUAL = 18
BUDGETS: tuple[Budget, ...] = ("usual steps", "equal evaluations")


@dataclass(frozen=True)
class Loss:
    """What a line loses against one rule at equal displacement; positive: the line is worse.

    `guidance`, `steps` and `nfe` are the rule's; `dof` are Student's degrees of freedom.
    """

    rule: str
    guidance: float
    steps: int
    nfe: int
    value: float
    se: float
    dof: float

    def half(self, tests: int) -> float:
        """Half of the interval that holds for each of so many tests at once."""
        return float(self.se * stats.t.ppf(1 - LEVEL / 2 / tests, self.dof))


def against_best(losses: Sequence[Loss], rules: int, scales: int = 1) -> tuple[Loss, float, float]:
    """The rule that is most surely better, and the interval of the loss against the best rule.

    `rules`: from so many the rules of `losses` were taken. `scales`: at so many scales the interval
    holds at once.
    """
    tests = max(rules, len(losses)) * scales
    surest = max(losses, key=lambda one: one.value - one.half(tests))
    high = max(one.value + one.half(scales) for one in losses)
    return surest, surest.value - surest.half(tests), high


def verdict(low: float, high: float) -> str:
    """What the interval of a loss says of the line."""
    return "worse" if low > 0 else "better" if high < 0 else "undecided"


@dataclass(frozen=True)
class Line:
    """A line of an experiment with its curves, those of the measures that were asked for."""

    data: Data
    series: Series
    _curves: dict[Column, Curve | None] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The name of the rule, without its knobs."""
        return self.series.rule.partition(" (")[0] or CFG

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales at which the line guides, ascending."""
        own = {r.guidance for r in self.data.rows_of(self.series) if not r.only_matched}
        return tuple(sorted(own - {1.0}))

    def cost(self, guidance: float) -> int:
        """Evaluations per image at a scale, or at the nearest one at which it was run."""
        found = [r for r in self.data.rows_of(self.series) if r.guidance > 1 and r.status == "ok"]
        return min(found, key=lambda r: abs(r.guidance - guidance)).nfe if found else 0

    def level(self, column: Column, guidance: float) -> Level | None:
        """The value at a scale, and without one group of samples each."""
        cell = self.data.everywhere(column, self.series).get(guidance)
        return level(cell, frozenset(r.seed for r, _ in cell.found)) if cell else None

    def curve(self, column: Column) -> Curve | None:
        """The values along the scales; None for fewer than three."""
        if column not in self._curves:
            found = {g: self.level(column, g) for g in self.data.everywhere(column, self.series)}
            known = {g: one for g, one in found.items() if one is not None}
            self._curves[column] = make_curve(known)
        return self._curves[column]


@dataclass(frozen=True)
class Part:
    """A data set of one training seed: lines to compare, rules, and what is measured."""

    lines: tuple[Line, ...]
    rules: tuple[Line, ...]
    moved: Column
    judged: tuple[Column, ...]

    def losses(self, line: Line, g: float) -> dict[Column, list[Loss]]:
        """The losses of a line against all rules that can move samples as far, by measure."""
        found: dict[Column, list[Loss]] = {column: [] for column in self.judged}
        reached = line.level(self.moved, g)
        if reached is None:
            return found
        for rule in self.rules:
            outcomes = rule.curve(self.moved)
            match = find_match(outcomes, reached, "none") if outcomes else None
            if match is None or outcomes is None or match.place != "at":
                continue
            for column in self.judged:
                own, curve = line.level(column, g), rule.curve(column)
                if own is None or curve is None or not _inside(curve, match.scale):
                    continue
                joint = "real" not in (column.about.error_of, self.moved.about.error_of)
                gap = gap_at(match, reached, outcomes, own, curve, joint)
                if gap.se is not None:
                    sign = 1.0 if column.direction == "lower" else -1.0
                    dof = len(own.left) - 1 if match.paired else np.inf
                    steps, nfe = rule.series.steps, rule.cost(match.scale)
                    found[column].append(
                        Loss(rule.rule, match.scale, steps, nfe, sign * gap.value, gap.se, dof)
                    )
        return found


def _inside(curve: Curve, scale: float) -> bool:
    return bool(curve.scales[0] <= scale <= curve.scales[-1])


def over_seeds(found: Sequence[list[Loss]]) -> list[Loss]:
    """The losses of one training seed, or their means over seeds with the error over those."""
    if len(found) == 1:
        return found[0]
    by = [{(one.rule, one.steps): one for one in losses} for losses in found]
    means = []
    for key in [k for k in by[0] if all(k in other for other in by)]:
        same = [losses[key] for losses in by]
        values = [one.value for one in same]
        se = float(np.std(values, ddof=1) / np.sqrt(len(values)))
        scale = float(np.mean([one.guidance for one in same]))
        nfe = max(one.nfe for one in same)
        means.append(Loss(key[0], scale, key[1], nfe, float(np.mean(values)), se, len(values) - 1))
    return means


def precise(losses: Sequence[Loss]) -> list[Loss]:
    """The losses without those against rules whose scale of equal displacement is poorly known."""
    most = POOR * np.median([one.se for one in losses]) if losses else 0.0
    return [one for one in losses if one.se <= most]


def rows_of(experiment: str) -> list[Row]:
    """The rows of an experiment without those of tuning."""
    return [r for r in read_rows(Experiment(RESULTS, experiment).cells) if r.seed < TUNING_SEEDS]


def parts_of(experiment: str, dataset: str, extra: Sequence[Row] = ()) -> list[Part]:
    """A data set, once per training seed; `extra`: rows of further lines of rules."""
    parts = []
    rows = [r for r in rows_of(experiment) if r.dataset == dataset]
    for seed in sorted({r.train_seed for r in rows if r.method == NETWORK}):
        data = prepare([r for r in rows if r.train_seed == seed])
        lines = [Line(data, s) for s in data.series(dataset)]
        guides = [Line(data, s) for s in (*data.series(dataset), *data.companions(dataset))]
        own = [r for r in extra if r.dataset == dataset and r.train_seed == seed]
        if own:
            further = prepare(own)
            guides += [Line(further, s) for s in further.series(dataset)]
        own_columns = [c for c in data.columns if c.dataset == dataset]
        if not any(c.metric == "displacement" for c in own_columns):
            sys.exit(f"{experiment} has no displacement on {dataset}: sweep it with today's code.")
        parts.append(Part(
            tuple(one for one in lines if _learnt(one.series)),
            tuple(one for one in guides if one.series.method == NETWORK and one.cost(2.0)),
            next(c for c in own_columns if c.metric == "displacement"),
            (max(own_columns, key=lambda c: c.about.lead),
             *(c for c in own_columns if c.metric in VARIETY)),
        ))  # fmt: skip
    return parts


def _learnt(series: Series) -> bool:
    guided = METHODS[series.method].guidance != "none"
    return guided and not series.rule and series.method not in (NETWORK, "oracle")


def _of_run(series: Series) -> str:
    return f"{series.method} [{series.run}]" if series.run else series.method


def compared(label: str, parts: Sequence[Part]) -> pd.DataFrame:
    """A line per method, scale, budget and measure: the best rule, the loss and its interval."""
    rules = len({rule.rule for rule in parts[0].rules})
    usual = max((one.series.steps for one in parts[0].rules if one.rule != CFG), default=USUAL)
    most = 2 * max(
        one.cost(2.0) for one in parts[0].rules if (one.rule, one.series.steps) == (CFG, usual)
    )
    rows = []
    for line in parts[0].lines:
        twins = [next(o for o in p.lines if o.series == line.series) for p in parts]
        for g in [g for g in SCALES if g in line.scales]:
            found = [p.losses(twin, g) for p, twin in zip(parts, twins, strict=True)]
            for column in parts[0].judged:
                losses = over_seeds([one[column] for one in found])
                fair = {
                    BUDGETS[0]: [o for o in losses if o.steps == usual and o.nfe <= most],
                    BUDGETS[1]: [o for o in losses if o.nfe <= SAME_COST * line.cost(g)],
                }
                for budget, own in fair.items():
                    row = {"data": label, "method": _of_run(line.series),
                           "steps": line.series.steps,
                           "nfe": line.cost(g), "g": g, "against": budget,
                           "metric": column.metric, "rules": len(precise(own))}  # fmt: skip
                    if own := precise(own):
                        best, low, high = against_best(own, rules)
                        joint = verdict(*against_best(own, rules, len(SCALES))[1:])
                        row |= {"best": best.rule, "best_g": best.guidance,
                                "best_steps": best.steps, "best_nfe": best.nfe,
                                "loss": best.value, "low": low, "high": high,
                                "verdict": verdict(low, high), "joint": joint}  # fmt: skip
                    rows.append(row)
    return pd.DataFrame(rows)


def shortlist(frame: pd.DataFrame) -> list[str]:
    """The rules that are most often the best."""
    usual = frame[frame["against"] == BUDGETS[0]]
    named = Counter(rule for rule in usual["best"].dropna() if rule != CFG)
    return [rule for rule, _ in named.most_common(BEST)]


def sweep_rules(
    experiment: str, source: str, dataset: str, metric: str, rules: Sequence[str]
) -> list[Row]:
    """The rows of rules at the usual steps, where they lack, and at equal evaluations.

    Knobs are those of the experiment `source`, which has the rules at the usual steps.
    """
    place = Experiment(RESULTS, f"findings-learnt-{experiment}")
    known = [r for r in rows_of(source) if (r.dataset, r.method) == (dataset, NETWORK)]
    rows = [r for r in rows_of(experiment) if r.dataset == dataset]
    for origin in (experiment, source):
        for run in (Experiment(RESULTS, origin).runs).glob(f"{dataset}-{NETWORK}-s*"):
            if not (place.runs / run.name).exists() and (
                origin == experiment or run.name.endswith(WEAK)
            ):
                shutil.copytree(run, place.runs / run.name)
    names = sorted(run.name for run in place.runs.glob(f"{dataset}-{NETWORK}-s*"))
    runs = [name for name in names if not name.endswith(WEAK)]
    weak = next((name for name in names if name.endswith(WEAK)), None)
    targets = {r.nfe for r in rows if r.guidance > 1 and _learnt(Series(dataset, r.method, 0))}
    wanted: list[tuple[str, Row, int]] = []
    for rule in rules:
        row = max((r for r in known if r.rule == rule), key=lambda r: (r.steps, r.nfe))
        if not any(r.rule == rule for r in rows):
            wanted.append((rule, row, row.steps))
        for nfe in targets:
            # Heun's method has 2 steps - 1 calls.
            steps = round((nfe * (2 * row.steps - 1) / row.nfe + 1) / 2)
            if steps >= 1 and nfe > 1 and row.nfe > SAME_COST * nfe:
                wanted.append((rule, row, steps))
    for rule, row, steps in wanted:
        bench.sweep(
            method=[NETWORK], dataset=[dataset], rule=[rule], steps=str(steps), guidance=SWEPT,
            samples=row.n, metric=[metric, "displacement", *VARIETY],
            extractor=[EXTRACTOR[dataset]], experiment=place.name, results=RESULTS, workers=1,
            knob=pairs(row.knobs), weak_checkpoint=weak, run=runs,
        )  # fmt: skip
    return rows_of(place.name) if place.cells.exists() else []


def drawn(frame: pd.DataFrame) -> Figure:
    """The losses in the leading measure at a few scales: a panel per data set and budget."""
    leading = frame[~frame["metric"].isin(VARIETY)]
    sets = list(dict.fromkeys(leading["data"]))
    figure, axes = plt.subplots(
        len(sets), len(BUDGETS), figsize=(11, 3.4 * len(sets)), squeeze=False, sharey="row"
    )
    for row, data in zip(axes, sets, strict=True):
        own = leading[leading["data"] == data]
        names = list(dict.fromkeys(_name(r) for _, r in own.iterrows()))
        for place, budget in zip(row, BUDGETS, strict=True):
            points = own[(own["against"] == budget) & own["loss"].notna()]
            for k, g in enumerate(SCALES):
                part = points[points["g"] == g]
                at = [names.index(_name(r)) + 0.2 * (k - 1.5) for _, r in part.iterrows()]
                spans = [part["loss"] - part["low"], (part["high"] - part["loss"]).clip(lower=0)]
                place.errorbar(part["loss"], at, xerr=spans, fmt="o", ms=4, capsize=2, lw=1.2,
                               label=f"g = {g:g}")  # fmt: skip
            metric = own["metric"].iloc[0]
            place.axvline(0, color="grey", lw=0.8)
            place.set(title=f"{data}: {budget}", xlabel=f"{metric} less that of the best rule")
            place.set_xscale("symlog", linthresh=1 if metric == "fd" else 0.01)
            place.set_yticks(range(len(names)), names)
        row[0].invert_yaxis()
    axes[0, 0].legend(fontsize=8)
    sns.despine(figure)
    figure.tight_layout()
    return figure


def _name(row: pd.Series) -> str:
    return f"{row['method']}, {row['steps']} step{'' if row['steps'] == 1 else 's'}"


def main(experiments: Sequence[str]) -> None:
    """Write the table and the figure."""
    frames: list[pd.DataFrame] = []
    best: dict[str, tuple[str, list[str]]] = {}
    for experiment in experiments:
        for dataset in sorted({r.dataset for r in rows_of(experiment) if r.method == NETWORK}):
            parts = parts_of(experiment, dataset)
            label = f"{dataset}, {len(parts)} seeds" if len(parts) > 1 else dataset
            if dataset not in best:
                leading = [replace(part, judged=part.judged[:1]) for part in parts]
                best[dataset] = experiment, shortlist(compared(label, leading))
            source, rules = best[dataset]
            metric = parts[0].judged[0].metric
            extra = sweep_rules(experiment, source, dataset, metric, rules)
            frames.append(compared(label, parts_of(experiment, dataset, extra)))
    frame = pd.concat(frames, ignore_index=True)
    write("learnt", frame, drawn(frame))


if __name__ == "__main__":
    main(sys.argv[1:] or ["embedded"])
