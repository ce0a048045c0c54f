"""`bench verify`: computes a few stored rows again, and says whether they are what they say."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console

from bench.cli.findings import TOLERANCE, Finding, relative_gap
from bench.cli.verify_inversions import invert_again
from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.rows import Unreadable
from bench.evaluation.prepare import Evaluation, floor_split, prepare
from bench.experiment.inversion_rows import InversionRow, read_inversion
from bench.experiment.place import Experiment
from bench.experiment.rows import Changed, Row, Value, read_row
from bench.experiment.rules import ChosenRule
from bench.sweep.cells import Cell, expand
from bench.sweep.run import FLOOR, floor_key, floor_row, run_cell
from bench.system import places
from bench.system.devices import resolve_device
from bench.system.errors import UserError, explain
from bench.system.files import sha256
from bench.system.progress import Bar, say
from bench.training.extra_network import extra_network_of_run
from bench.training.run import Run, load_nets, open_run
from bench.training.runs import CARD, WEIGHTS, make_card, read_card, trained_runs, unregistered
from bench.tuning.space import nested
from methods import METHODS
from methods.rules import CFG, make_rule

Stored = Row | InversionRow


def verify_all(
    console: Console, place: Experiment, *, cells: int, seed: int, device: str, batch: int
) -> None:
    """Check the names of all rows and compute `cells` of them again; UserError if any differs.

    Rows are of cells, of the floor (real samples measured like generated ones) and of inversions.
    """
    where = resolve_device(device)
    rows: list[tuple[Path, Stored]] = []
    findings: list[Finding] = []
    kinds: tuple[tuple[Path, Callable[[Path], Stored]], ...] = (
        (place.cells, read_row),
        (place.inversions, read_inversion),
    )
    for folder, read in kinds:
        for path in sorted(folder.glob("*/*.json")):
            try:
                rows.append((path, read(path)))
            except Changed as error:
                findings.append(Finding(path, "differs", error.how))
    if not rows and not findings:
        raise UserError(f"There are no rows in {place.cells}: bench sweep first.")
    total = len(rows) + len(findings)
    findings += [f for path, row in rows if (f := _misnamed(path, row)) is not None]
    able = [(path, row) for path, row in rows if row.status == "ok"]
    picked = random.Random(seed).sample(able, min(cells, len(able)))
    with Bar("verify", len(picked), 0, console) as bar:
        for done, (path, row) in enumerate(picked):
            findings.append(_again(path, row, place, where, batch))
            bar.update(done + 1, f"{row.run} g={row.guidance:g}")
    _tell(console, findings, total)


def _tell(console: Console, findings: Sequence[Finding], total: int) -> None:
    for found in findings:
        if found.verdict in ("differs", "stale"):
            say(console, f"{found.path}: {found.verdict}, {found.text}.")
    count = {v: sum(f.verdict == v for f in findings) for v in ("equal", "close", "stale")}
    largest = max((f.largest for f in findings), default=0.0)
    say(
        console,
        f"Of {total} rows {len(findings)} were looked at: {count['equal']} equal to the last bit, "
        f"{count['close']} equal but for rounding (largest relative difference {largest:.1e}), "
        f"{count['stale']} stale.",
    )
    wrong = sum(f.verdict == "differs" for f in findings)
    if wrong:
        raise UserError(
            f"{wrong} rows are not what their cells give; remove those files and sweep again."
        )


def _misnamed(path: Path, row: Stored) -> Finding | None:
    """A row that does not lie where its content says."""
    if (path.parent.name, path.stem) == (row.run, row.key[:24]):
        return None
    return Finding(path, "differs", f"it is named as another cell than its own, {row.key[:24]}")


def _again(path: Path, row: Stored, place: Experiment, device: torch.device, batch: int) -> Finding:
    """The verdict on one row."""
    try:
        if isinstance(row, InversionRow):
            return invert_again(path, row, _run(row, place), place, device, batch)
        if row.method == FLOOR:
            return _floor_again(path, row, place, device)
    except Unreadable:  # which says nothing about the row
        raise
    except UserError as error:
        return Finding(path, "stale", str(error).rstrip("."))
    return _cell_again(path, row, place, device, batch)


def _floor_again(path: Path, row: Row, place: Experiment, device: torch.device) -> Finding:
    """The verdict on real samples that were measured like generated ones."""
    data = find_dataset(row.dataset)
    split = floor_split(data, row.n)
    if split is None:
        return Finding(path, "stale", f"{row.dataset!r} has fewer than {row.n} training samples")
    evaluation = _evaluation(row, data, place, device)
    if floor_key(split, evaluation) != row.key:
        return Finding(path, "stale", f"the samples of {row.dataset!r} have changed since")
    with tempfile.TemporaryDirectory() as folder, places.holding():
        fresh = floor_row(data, evaluation, Experiment(Path(folder), place.name), row.n)
    assert fresh is not None
    return _compare(path, row, fresh)


def _cell_again(
    path: Path, row: Row, place: Experiment, device: torch.device, batch: int
) -> Finding:
    try:
        ready = _target(row, place)
        cell = _cell(row, ready)
    except Unreadable:  # which says nothing about the row
        raise
    except UserError as error:
        return Finding(path, "stale", str(error).rstrip("."))
    if cell.key != row.key:
        return Finding(path, "stale", _reason(row, ready))
    try:
        evaluation = _evaluation(row, ready.data, place, device)
    except Unreadable:  # which says nothing about the row
        raise
    except UserError as error:
        return Finding(path, "stale", str(error).rstrip("."))
    with tempfile.TemporaryDirectory() as folder, places.holding():
        scratch = Experiment(Path(folder), place.name)
        scratch.root.mkdir()
        fresh = run_cell(
            cell, load_nets(ready, device), evaluation, scratch, batch=batch, device=device
        )
    return _compare(path, row, fresh)


def _evaluation(row: Row, data: Dataset, place: Experiment, device: torch.device) -> Evaluation:
    """What measures the metrics of a row; UserError where they cannot be measured here."""
    names = sorted({value.metric for value in row.values})
    extractors = sorted({value.extractor for value in row.values if value.extractor})
    try:
        return prepare(
            data, place.cache, metrics=names, extractors=extractors or None, device=device
        )
    except Unreadable:
        raise
    except UserError as error:
        raise UserError(f"its metrics cannot be computed here: {error}") from None


def _compare(path: Path, row: Row, fresh: Row) -> Finding:
    if fresh.status != "ok":
        return Finding(path, "differs", f"now it is {fresh.status}: {fresh.reason}")
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
    """Relative difference of two values; of the error as well, which is stored beside."""
    pairs = [(old.value, new.value)]
    if old.se is not None and new.se is not None:
        pairs.append((old.se, new.se))
    return max(relative_gap(a, b) for a, b in pairs)


def _target(row: Row, place: Experiment) -> Run:
    """The run behind a row, with the second networks it names; UserError if it is not here."""
    ready = _run(row, place)
    if row.null_checkpoint:
        ready = ready.join(extra_network_of_run("null", *_run_of(row.null_checkpoint, place)))
    if row.weak_checkpoint:
        ready = ready.join(extra_network_of_run("weak", *_run_of(row.weak_checkpoint, place)))
    return ready


def _run(row: Stored, place: Experiment) -> Run:
    """The run behind a row; UserError if it is not here."""
    if row.method not in METHODS:
        raise UserError(f"its method {row.method!r} is not registered")
    data = find_dataset(row.dataset)
    folder = place.runs / row.run
    if METHODS[row.method].trains:
        if not (folder / CARD).exists():
            raise UserError(f"its run {row.run!r} is not here")
        card = read_card(folder)
        reason = unregistered(card)
        if reason is not None:
            raise UserError(reason)
    else:
        card = make_card(row.method, data=data, seed=row.train_seed)
    ready = open_run(card, data, place)
    if ready is None:
        raise UserError(f"its run {row.run!r} has no weights")
    return ready


def _run_of(checkpoint: str, place: Experiment) -> tuple[str, Path]:
    """Name and folder of the run whose weights have this hash."""
    for card in trained_runs(place):
        weights = place.runs / card.name / WEIGHTS
        if weights.exists() and sha256(weights) == checkpoint:
            return card.name, weights.parent
    raise UserError("its second network is not among the runs here")


def _cell(row: Row, ready: Run) -> Cell:
    """The cell that a row says it is."""
    try:
        rule = make_rule(row.rule, nested(row.knobs)) if row.rule else CFG()
    except KeyError:
        raise UserError(
            f"its rule {row.rule!r} is not registered: name its plugin with --plugin"
        ) from None
    except ValueError as error:
        what = explain(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"its rule {row.rule!r} is another now: {what}") from None
    rules = [ChosenRule(rule, row.knobs_from)]
    (cell,) = expand(ready, [row.guidance], [row.steps], [row.seed], row.n, rules)
    return replace(cell, knobs_from=row.knobs_from)


def _reason(row: Row, ready: Run) -> str:
    """Why a row is not that of its cell any more."""
    if row.checkpoint != ready.checkpoint:
        return f"the weights of {row.run!r} have changed since"
    if ready.card.data_hash not in ("", row.data_hash):
        return f"the data of {row.run!r} have changed since"
    return f"the code or the settings of {row.rule or row.method!r} have changed since"
