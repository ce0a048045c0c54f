"""Recompute stored rows of inversions and compare them with what is stored."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from bench.experiment.inversion_rows import InversionRow, Share
from bench.experiment.place import Experiment
from bench.inversion.plan import Bench, InversionCell, plan_inversions, prepare_bench
from bench.inversion.sweep import sweep_inversions
from bench.sweep.verify import TOLERANCE, Again, Finding, relative_gap, run_of, verdict
from bench.system.errors import UserError

Numbers = dict[str, tuple[float | None, float]]
"""By name: a number or None, and the least scale of its relative difference."""
TINY = 1e-9


def verify_inversion(
    path: Path, row: InversionRow, experiment: Experiment, device: torch.device, batch: int
) -> Finding:
    """The verdict on one row."""

    def plan() -> Again:
        ready = run_of(row, experiment)
        bench = prepare_bench(ready.data, row.n, experiment)
        (cell,) = plan_inversions(ready, [row.guidance], bench, batch=row.authors_batch)
        if cell.key != row.key:
            raise UserError(_reason(row, cell, bench))
        return partial(sweep_inversions, [cell], bench, batch=batch, device=device)

    return verdict(path, row, experiment, plan, _compare)


def _compare(path: Path, row: InversionRow, fresh: InversionRow) -> Finding:
    old, new = _numbers(row), _numbers(fresh)
    largest = 0.0
    for name in [*old, *(name for name in new if name not in old)]:
        (a, least), (b, _) = old.get(name, (None, TINY)), new.get(name, (None, TINY))
        if a is None or b is None:
            gap = 0.0 if a is b else float("inf")
        else:
            gap = relative_gap(a, b, least)
        if gap > TOLERANCE:
            return Finding(path, "differs", f"{name} is {a!r} and gives {b!r}")
        largest = max(largest, gap)
    return Finding(path, "close" if largest else "equal", largest=largest)


def _numbers(row: InversionRow) -> Numbers:
    """All numbers of a row except times and pictures."""
    found: Numbers = {}
    for score in row.scores:
        found[score.name] = (score.value, TINY)
        found[f"the error of {score.name}"] = (score.se, TINY)
    for field in ("exact", "inversion_nfe", "reconstruction_nfe", "edit_nfe"):
        found[field] = (getattr(row, field), TINY)
    if row.latents is not None:
        # Statistics of what should be N(0, 1): a mean near 0 gives no scale.
        for field, value in row.latents.model_dump().items():
            found[f"latents.{field}"] = (value, 1.0)
    for pair in row.pairs:
        for field in ("n", "right"):
            found[f"edits {pair.source} to {pair.target}, {field}"] = (getattr(pair, field), TINY)
    for name, share in (("edits", row.edits), ("real", row.real)):
        if share is not None:
            found |= {f"{name}.{k}": (getattr(share, k), TINY) for k in Share.model_fields}
    return found


def _reason(row: InversionRow, cell: InversionCell, bench: Bench) -> str:
    """What has changed since a row was written."""
    card = cell.run.card
    if row.checkpoint != cell.run.checkpoint:
        return f"the weights of {row.run!r} have changed since"
    if row.data_hash != card.data_hash:
        return f"the data of {row.run!r} have changed since"
    if row.reference_hash != bench.split.hash:
        return f"the reference images of {row.dataset!r} have changed since"
    if row.judge_hash != bench.judge.hash:
        return f"the judge {row.judge!r} has changed since"
    return f"the code or the settings of {row.method!r}, or its measures, have changed since"
