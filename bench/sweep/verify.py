"""Recompute stored rows and compare them with what is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.rows import Unreadable
from bench.evaluation.prepare import Evaluation, floor_split, prepare
from bench.experiment.inversion_rows import InversionRow
from bench.experiment.place import Experiment
from bench.experiment.rows import Row, StoredRow, Value, read_as, row_path
from bench.experiment.rules import ChosenRule, load_guiders, nested
from bench.sweep.cells import Cell, expand
from bench.sweep.execute import Outcome
from bench.sweep.run import FLOOR, floor_key, sweep, sweep_floor
from bench.system import places
from bench.system.errors import UserError, explain
from bench.system.files import sha256
from bench.training.card import CARD, WEIGHTS, make_card, read_card, trained_runs, unregistered
from bench.training.extra_network import Role, extra_network_of_run
from bench.training.run import Run, open_run
from methods import METHODS
from methods.rules import CFG, make_rule
from methods.samplers import Sampler

Verdict = Literal["equal", "close", "differs", "stale"]
TOLERANCE = 1e-3
"""Largest relative difference that rounding on other hardware or in other batches may make."""

R = TypeVar("R", bound=StoredRow)


@dataclass(frozen=True)
class Finding:
    """The verdict on one row: `text` says what differs, or why it was not compared."""

    path: Path
    verdict: Verdict
    text: str = ""
    largest: float = 0.0


Again = Callable[[Experiment], Outcome]
"""Computes one row in the experiment it gets."""


def relative_gap(old: float, new: float, least: float = 1e-9) -> float:
    """|old - new| / max(|old|, |new|, least)."""
    return abs(old - new) / max(abs(old), abs(new), least)


def verify_row(
    path: Path, row: Row, experiment: Experiment, device: torch.device, batch: int
) -> Finding:
    """The verdict on a row of a cell, or of the floor."""

    def plan() -> Again:
        if row.method == FLOOR:
            return _floor_again(row, experiment, device)
        ready = _target(row, experiment)
        cell = _cell(row, ready)
        if cell.key != row.key:
            raise UserError(_reason(row, ready))
        evaluation = _evaluation(row, ready.data, experiment, device)
        return lambda scratch: sweep([cell], evaluation, scratch, batch=batch, device=device)

    return verdict(path, row, experiment, plan, _compare)


def verdict(
    path: Path,
    row: R,
    experiment: Experiment,
    plan: Callable[[], Again],
    compare: Callable[[Path, R, R], Finding],
) -> Finding:
    """Recompute a row in a scratch experiment and compare; a UserError of `plan` makes it stale."""
    try:
        again = plan()
    except Unreadable:  # a failure to read says nothing about the row
        raise
    except UserError as error:
        return Finding(path, "stale", str(error).rstrip("."))
    with tempfile.TemporaryDirectory() as folder, places.holding():
        scratch = Experiment(Path(folder), experiment.name)
        outcome = again(scratch)
        if outcome.failed:
            return Finding(path, "differs", f"now it fails: {outcome.failed[0]}")
        fresh = read_as(
            type(row), row_path(scratch.root / path.parent.parent.name, row.run, row.key)
        )
    if fresh.status != "ok":
        return Finding(path, "differs", f"now it is {fresh.status}: {fresh.reason}")
    return compare(path, row, fresh)


def _floor_again(row: Row, experiment: Experiment, device: torch.device) -> Again:
    data = find_dataset(row.dataset)
    split = floor_split(data, row.n)
    if split is None:
        raise UserError(f"{row.dataset!r} has fewer than {row.n} training samples")
    evaluation = _evaluation(row, data, experiment, device)
    if floor_key(split, evaluation) != row.key:
        raise UserError(f"the samples of {row.dataset!r} have changed since")
    return lambda scratch: sweep_floor(split, evaluation, scratch)


def _evaluation(
    row: Row, data: Dataset, experiment: Experiment, device: torch.device
) -> Evaluation:
    """Prepare the metrics of a row; UserError if they cannot be measured here."""
    names = sorted({value.metric for value in row.values})
    extractors = sorted({value.extractor for value in row.values if value.extractor})
    try:
        return prepare(
            data, experiment.cache, metrics=names, extractors=extractors or None, device=device
        )
    except Unreadable:
        raise
    except UserError as error:
        raise UserError(f"its metrics cannot be computed here: {error}") from None


def _compare(path: Path, row: Row, fresh: Row) -> Finding:
    now = {(v.metric, v.extractor): v for v in fresh.values}
    largest, stale = 0.0, []
    for old in row.values:
        new = now.get((old.metric, old.extractor))
        if new is None or new.signature != old.signature:
            stale.append(old.metric)
            continue
        gap = _gap(old, new)
        if gap > TOLERANCE:
            return Finding(
                path, "differs", f"{old.metric} is {old.value!r} and gives {new.value!r}"
            )
        largest = max(largest, gap)
    if stale:
        return Finding(path, "stale", f"the code or reference of {', '.join(stale)} has changed")
    return Finding(path, "close" if largest else "equal", largest=largest)


def _gap(old: Value, new: Value) -> float:
    """The larger relative difference, of two values or of their standard errors."""
    pairs = [(old.value, new.value)]
    if old.se is not None and new.se is not None:
        pairs.append((old.se, new.se))
    return max(relative_gap(a, b) for a, b in pairs)


def _target(row: Row, experiment: Experiment) -> Run:
    """The run of a row with its extra networks; UserError if one is not here."""
    ready = run_of(row, experiment)
    roles: dict[Role, str] = {"null": row.null_checkpoint, "weak": row.weak_checkpoint}
    for role, checkpoint in roles.items():
        if checkpoint:
            ready = ready.join(extra_network_of_run(role, *_run_of(checkpoint, experiment)))
    return ready


def run_of(row: Row | InversionRow, experiment: Experiment) -> Run:
    """The run of a row; UserError if it is not here."""
    if row.method not in METHODS:
        raise UserError(f"its method {row.method!r} is not registered: name its file with --plugin")
    data = find_dataset(row.dataset)
    folder = experiment.runs / row.run
    if METHODS[row.method].trains:
        if not (folder / CARD).exists():
            raise UserError(f"its run {row.run!r} is not here")
        card = read_card(folder)
        reason = unregistered(card)
        if reason is not None:
            raise UserError(reason)
    else:
        card = make_card(row.method, data=data, seed=row.train_seed)
    ready = open_run(card, data, experiment)
    if ready is None:
        raise UserError(f"its run {row.run!r} has no weights")
    return ready


def _run_of(checkpoint: str, experiment: Experiment) -> tuple[str, Path]:
    """Name and folder of the run whose weights have this hash."""
    for card in trained_runs(experiment):
        weights = experiment.runs / card.name / WEIGHTS
        if weights.exists() and sha256(weights) == checkpoint:
            return card.name, weights.parent
    raise UserError("its extra network is not among the runs here")


def _cell(row: Row, ready: Run) -> Cell:
    """The cell of a row."""
    load_guiders([row.rule])
    try:
        rule = make_rule(row.rule, nested(row.knobs)) if row.rule else CFG()
    except KeyError:
        raise UserError(
            f"its rule {row.rule!r} is not registered: name its plugin with --plugin"
        ) from None
    except ValueError as error:
        what = explain(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"its rule {row.rule!r} has changed: {what}") from None
    rules = [ChosenRule(rule, row.knobs_from)]
    sampler = Sampler(row.sampler, row.grid)
    if ready.method.takes_samplers:
        ready = replace(ready, method=ready.method.with_sampler(sampler))
    (cell,) = expand(
        ready, [row.guidance], [row.steps], [row.seed], row.n, rules,
        labels=row.labels or "balanced", sampler=sampler,
    )  # fmt: skip
    return replace(cell, knobs_from=row.knobs_from)


def _reason(row: Row, ready: Run) -> str:
    """What has changed since a row was written."""
    if row.checkpoint != ready.checkpoint:
        return f"the weights of {row.run!r} have changed since"
    if ready.card.data_hash not in ("", row.data_hash):
        return f"the data of {row.run!r} have changed since"
    return f"the code or the settings of {row.rule or row.method!r} have changed since"
