"""Further cells of CFG, so that other lines are compared with it at equal outcome or equal cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bench.experiment.place import Experiment
from bench.experiment.rows import Row, read_rows
from bench.report.numbers.frame import prepare
from bench.report.numbers.match import CLOSE
from bench.report.numbers.matched import SAME_COST, match_lines
from bench.report.numbers.names import FLOOR
from bench.sweep.cells import Cell, expand
from bench.sweep.plan import Sweep
from bench.training.run import Run
from methods import Guidance

ROUNDS = 3
"""How often scales are found anew: cells at them move the curve between the others a little."""

MOST_STEPS = 1000


def with_equal_cost(planned: Sweep) -> Sweep:
    """The same sweep with CFG at the steps whose evaluations are nearest to those of other lines.

    A step count that costs the same as none of them within 10% is not added.
    """
    more: list[Cell] = []
    for run in planned.runs:
        if not run.method.takes_rules:
            continue
        steps = {
            found
            for nfe in _costs(planned.cells, run)
            if (found := _steps(run, nfe, max(planned.study.guidance))) is not None
        }
        steps -= {cell.steps for cell in planned.cells if cell.run is run and not cell.rule}
        if steps:
            study = planned.study
            more += expand(
                run, study.guidance, sorted(steps), study.sampling_seeds, planned.samples,
                labels=study.sample_labels, sampler=planned.sampler,
            )  # fmt: skip
    companions = (replace(cell, only_matched=True) for cell in more if not cell.skip)
    return replace(planned, cells=(*planned.cells, *companions))


def _costs(cells: Iterable[Cell], run: Run) -> set[int]:
    """The evaluations of all lines that are compared with CFG of a run: its rules and methods."""
    found = set()
    for cell in cells:
        own = cell.run is run and cell.rule
        learnt = run.method.trains and not cell.run.method.takes_rules
        if (own or learnt) and not cell.skip:
            found.add(cell.nfe)
    return found


def _steps(run: Run, nfe: int, guidance: float) -> int | None:
    """The steps of CFG with the nearest number of evaluations; None if it differs by over 10%."""
    guided, steps = Guidance(guidance), 1
    while run.method.nfe(guided, steps) < nfe and steps < MOST_STEPS:
        steps += 1
    near = min((s for s in (steps - 1, steps) if s), key=lambda s: _apart(run, guided, s, nfe))
    return near if _apart(run, guided, near, nfe) <= SAME_COST else None


def _apart(run: Run, guided: Guidance, steps: int, nfe: int) -> float:
    return abs(run.method.nfe(guided, steps) / nfe - 1)


def matched_cells(planned: Sweep, experiment: Experiment) -> list[Cell]:
    """Cells of CFG at the scales of equal outcome, as the stored rows tell them.

    By the outcome that finds a scale for the most lines. None where CFG was run close to it.
    """
    seeds = set(planned.study.sampling_seeds)
    rows = [
        row for row in read_rows(experiment.cells)
        if row.dataset == planned.evaluation.data.name and row.n == planned.samples
        and (row.method == FLOOR or (row.seed in seeds and _is_sampled_so(row, planned)))
        and _is_measured_so(row, planned)
    ]  # fmt: skip
    if not rows:
        return []
    data = prepare(rows)
    matched = match_lines(data).get(planned.evaluation.data.name)
    if matched is None:
        return []
    cells: dict[str, Cell] = {}
    # Seconds are noisy: cells chosen by them would not be the same next time.
    duels = [
        d for d in matched.duels
        if d.outcome == matched.chosen and d.gaps and d.equal != "seconds"
    ]  # fmt: skip
    for line in dict.fromkeys(d.cfg for d in duels):
        scales = [d.match.scale for d in duels if d.cfg == line and not d.match.measured]
        names = {row.run for row in data.rows_of(line)}
        for run in (run for run in planned.runs if run.name in names):
            for cell in expand(
                run, list(_cover(scales)), [line.steps], sorted(seeds), planned.samples,
                labels=planned.study.sample_labels, sampler=planned.sampler,
            ):  # fmt: skip
                cells.setdefault(cell.key, replace(cell, only_matched=True))
    return [cell for cell in cells.values() if not cell.skip]


def _is_sampled_so(row: Row, planned: Sweep) -> bool:
    study = planned.study
    own = (row.sampler, row.grid, row.labels or study.sample_labels)
    return own == (study.sampler, study.grid, study.sample_labels)


def _is_measured_so(row: Row, planned: Sweep) -> bool:
    """Whether no value was measured by other code or against another reference."""
    now = {(m.metric.name, m.extractor): m.signature for m in planned.evaluation.plan}
    return all(v.signature == now.get((v.metric, v.extractor), v.signature) for v in row.values)


def _cover(scales: Sequence[float]) -> Iterator[float]:
    """As few of the scales as leave none further than CLOSE from one of them."""
    rest = sorted(scales)
    while rest:
        reach = [g for g in rest if g - rest[0] <= CLOSE * abs(rest[0])]
        yield round(reach[-1], 3)
        rest = [g for g in rest if g - reach[-1] > CLOSE * abs(g)]
