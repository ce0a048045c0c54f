"""Stored rows of inversions computed again, and what differs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from bench.data.rows import Unreadable
from bench.experiment.inversion_rows import InversionRow, Share, read_inversion
from bench.experiment.place import Experiment
from bench.experiment.rows import row_path
from bench.inversion.plan import Bench, InversionCell, plan_inversions, prepare_bench
from bench.inversion.sweep import sweep_inversions
from bench.sweep.verify import TOLERANCE, Finding, relative_gap, run_of
from bench.system import places
from bench.system.errors import UserError

Numbers = dict[str, tuple[float | None, float]]
"""By name: a number, None where there is none, and the least size that differences are held to."""
TINY = 1e-9


def verify_inversion(
    path: Path, row: InversionRow, experiment: Experiment, device: torch.device, batch: int
) -> Finding:
    """The verdict on one row."""
    try:
        return _again(path, row, experiment, device, batch)
    except Unreadable:  # which says nothing about the row
        raise
    except UserError as error:
        return Finding(path, "stale", str(error).rstrip("."))


def _again(
    path: Path, row: InversionRow, experiment: Experiment, device: torch.device, batch: int
) -> Finding:
    ready = run_of(row, experiment)
    bench = prepare_bench(ready.data, row.n, experiment)
    (planned,) = plan_inversions(ready, [row.guidance], bench, batch=row.authors_batch)
    if planned.key != row.key:
        return Finding(path, "stale", _reason(row, planned, bench))
    if planned.skip:
        return Finding(path, "differs", f"now it is a skip: {planned.skip}")
    with tempfile.TemporaryDirectory() as folder, places.holding():
        scratch = Experiment(Path(folder), experiment.name)
        outcome = sweep_inversions([planned], bench, scratch, batch=batch, device=device)
        if outcome.failed:
            return Finding(path, "differs", f"now it fails: {outcome.failed[0]}")
        fresh = read_inversion(row_path(scratch.inversions, row.run, row.key))
    if fresh.status != "ok":
        return Finding(path, "differs", f"now it is {fresh.status}: {fresh.reason}")
    return _compare(path, row, fresh)


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
    """All numbers that a row was made for: everything but times and pictures."""
    found: Numbers = {}
    for score in row.scores:
        found[score.name] = (score.value, TINY)
        found[f"the error of {score.name}"] = (score.se, TINY)
    for field in ("exact", "inversion_nfe", "reconstruction_nfe", "edit_nfe"):
        found[field] = (getattr(row, field), TINY)
    if row.latents is not None:
        # Statistics of what should be N(0, 1): the size of a mean near 0 is no scale.
        for field, value in row.latents.model_dump().items():
            found[f"latents.{field}"] = (value, 1.0)
    for pair in row.pairs:
        for field in ("n", "right"):
            found[f"edits {pair.source} to {pair.target}, {field}"] = (getattr(pair, field), TINY)
    for name, share in (("edits", row.edits), ("real", row.real)):
        if share is not None:
            found |= {f"{name}.{k}": (getattr(share, k), TINY) for k in Share.model_fields}
    return found


def _reason(row: InversionRow, planned: InversionCell, bench: Bench) -> str:
    """What has changed since a row was written."""
    card = planned.target.card
    if row.checkpoint != planned.target.checkpoint:
        return f"the weights of {row.run!r} have changed since"
    if row.data_hash != card.data_hash:
        return f"the data of {row.run!r} have changed since"
    if row.reference_hash != bench.split.hash:
        return f"the reference images of {row.dataset!r} have changed since"
    if row.judge_hash != bench.judge.hash:
        return f"the judge {row.judge!r} has changed since"
    return f"the code or the settings of {row.method!r}, or its measures, have changed since"
