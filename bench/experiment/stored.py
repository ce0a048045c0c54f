"""What experiments have on disk, by names and filters: to list, remove and rename it.

Run cards are read without their settings, so that torch and the method's code are not needed.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bench.experiment.inversion_rows import InversionRow
from bench.experiment.place import CARD, WEIGHTS, Experiment
from bench.experiment.rows import Row, StoredRow, read_as, read_row, write_row
from bench.system.bounds import read_json
from bench.system.errors import UserError, check_name, unknown
from bench.system.files import make_folder, write_text
from bench.system.leases import LEASE, try_lease

TRASH = ".removed"
"""Folder of what is being removed: it is moved there at once, and then deleted."""


class _Training(BaseModel):
    iterations: int


class _Card(BaseModel):
    """The part of a run's card that is shown."""

    name: str
    method: str
    dataset: str
    preset: str
    seed: int
    train: _Training | None = None


@dataclass(frozen=True)
class StoredRun:
    """A run with a folder of weights, or one that has only rows, as of a method without weights."""

    name: str
    method: str
    dataset: str
    seed: int | None
    state: str
    rows: int


@dataclass(frozen=True)
class Filter:
    """Which rows and runs are meant; an empty condition holds for all."""

    runs: Sequence[str] = ()
    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    rules: Sequence[str] = ()
    guidance: Sequence[float] = ()
    steps: Sequence[int] = ()
    seeds: Sequence[int] = ()
    status: Sequence[str] = ()

    def has_run(self, run: StoredRun) -> bool:
        """Whether a run is meant."""
        return (
            (not self.runs or run.name in self.runs)
            and (not self.methods or run.method in self.methods)
            and (not self.datasets or run.dataset in self.datasets)
        )

    def has_row(self, row: Row) -> bool:
        """Whether a row is meant; plain guidance is the rule "cfg"."""
        conditions: tuple[tuple[Sequence[object], object], ...] = (
            (self.runs, row.run),
            (self.methods, row.method),
            (self.datasets, row.dataset),
            (self.rules, row.rule or "cfg"),
            (self.guidance, row.guidance),
            (self.steps, row.steps),
            (self.seeds, row.seed),
            (self.status, row.status),
        )
        return all(not wanted or own in wanted for wanted, own in conditions)


def stored_experiments(results: Path) -> list[Experiment]:
    """The experiments with runs or rows, by name."""
    found = []
    for folder in sorted(results.iterdir()) if results.is_dir() else ():
        try:
            experiment = Experiment(results, folder.name)
        except UserError:  # the cache, or not an experiment
            continue
        if any(part.is_dir() for part in (experiment.runs, experiment.cells)):
            found.append(experiment)
    return found


def stored_rows(experiment: Experiment, wanted: Filter) -> dict[Path, Row]:
    """The rows of cells that are meant, by their files."""
    rows = {path: read_row(path) for path in sorted(experiment.cells.glob("*/*.json"))}
    return {path: row for path, row in rows.items() if wanted.has_row(row)}


def stored_runs(experiment: Experiment, wanted: Filter) -> list[StoredRun]:
    """The runs that are meant, by name."""
    names = {
        folder.name
        for place in (experiment.runs, experiment.cells)
        for folder in (place.iterdir() if place.is_dir() else ())
        if folder.is_dir()
    }
    found = (_stored_run(experiment, name) for name in sorted(names))
    return [run for run in found if run is not None and wanted.has_run(run)]


def _stored_run(experiment: Experiment, name: str) -> StoredRun | None:
    folder = experiment.runs / name
    rows = sorted((experiment.cells / name).glob("*.json"))
    if (folder / CARD).exists():
        card = _read_card(folder)
        length = f", {card.train.iterations:,} iterations" if card.train else ""
        state = "trained" if (folder / WEIGHTS).exists() else "unfinished"
        state = "imported" if card.preset == "imported" else f"{state}{length}"
        return StoredRun(name, card.method, card.dataset, card.seed, state, len(rows))
    if not rows:
        return None
    row = read_row(rows[0])
    return StoredRun(name, row.method, row.dataset, None, "no weights", len(rows))


def _read_card(folder: Path) -> _Card:
    remedy = "restore it, or remove the folder and train again"
    return read_json(folder / CARD, _Card.model_validate_json, "a run's card", remedy)


def folders_of(experiment: Experiment, run: str) -> list[Path]:
    """The folders of a run that exist, the one with its weights first."""
    places = (
        *(experiment.runs, experiment.cells, experiment.samples),
        *(experiment.inversions, experiment.tuned),
    )
    return [place / run for place in places if (place / run).is_dir()]


def refuse_running(experiment: Experiment, runs: Iterable[str]) -> None:
    """UserError if a process trains one of the runs."""
    for run in runs:
        folder = experiment.runs / run
        lease = try_lease(folder / LEASE) if folder.is_dir() else None
        if lease is not None:
            lease.release()
        elif folder.is_dir():
            raise UserError(f"Another process is training {run!r}: stop it first.")


def remove(root: Path, paths: Iterable[Path]) -> None:
    """Remove files and folders below `root`; each is gone at once, also if this is interrupted."""
    trash = root / TRASH
    for path in paths:
        make_folder(trash)
        path.rename(trash / f"{path.name}-{secrets.token_hex(4)}")
    if trash.is_dir():
        shutil.rmtree(trash)


def rename_experiment(results: Path, old: str, new: str) -> Experiment:
    """Rename an experiment, also in its rows; continues a renaming that was interrupted.

    UserError if there is no such experiment, or another of the new name.
    """
    here, there = Experiment(results, old), Experiment(results, new)
    if here.root.is_dir() and there.root.exists():
        raise UserError(f"There is an experiment {new!r} in {results}: choose another name.")
    if here.root.is_dir():
        refuse_running(here, (run.name for run in stored_runs(here, Filter())))
        here.root.rename(there.root)
    elif not any(row.experiment == old for _, row in _all_rows(there)):
        names = [experiment.name for experiment in stored_experiments(results)]
        raise unknown("experiment", old, names)
    for folder, row in _all_rows(there):
        if row.experiment == old:
            write_row(folder, row.model_copy(update={"experiment": new}))
    return there


def rename_run(experiment: Experiment, old: str, new: str) -> None:
    """Rename a run: its folders, rows and card, and the cards of runs that started from it.

    Continues a renaming that was interrupted. UserError if there is no such run with weights or if
    the new name is taken.
    """
    check_name("run", new)
    here, there = experiment.runs / old, experiment.runs / new
    begun = (there / CARD).exists() and _read_card(there).name == old
    if not begun:
        if not (here / CARD).exists():
            runs = [run.name for run in stored_runs(experiment, Filter())]
            known = [name for name in runs if (experiment.runs / name / CARD).exists()]
            raise unknown("run", old, known)
        if taken := folders_of(experiment, new):
            raise UserError(f"The name {new!r} is taken by {taken[0]}: choose another.")
        refuse_running(experiment, [old])
        here.rename(there)
    for folder in folders_of(experiment, old):
        folder.rename(folder.with_name(new))
    for folder, row in _all_rows(experiment, new):
        if row.run == old:
            write_row(folder, row.model_copy(update={"run": new}))
    for path in sorted((experiment.tuned / new).glob("*.json")):
        _edit(path, lambda tree: tree | ({"run": new} if tree.get("run") == old else {}))
    sources = ("init_run", "teacher_run")
    for path in sorted(experiment.runs.glob(f"*/{CARD}")):
        _edit(path, lambda tree: tree | {k: new for k in sources if tree.get(k) == old})
    _edit(there / CARD, lambda tree: tree | {"name": new})  # last, since it ends the renaming


def _edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a JSON file atomically, if there is something to change."""
    tree = json.loads(path.read_bytes())
    changed = change(tree)
    if changed != tree:
        write_text(path, json.dumps(changed, indent=2) + "\n")


def _all_rows(experiment: Experiment, run: str = "*") -> Iterator[tuple[Path, StoredRow]]:
    """All rows of cells and inversions, each with the folder of its kind."""
    kinds: tuple[tuple[Path, type[StoredRow]], ...] = (
        (experiment.cells, Row),
        (experiment.inversions, InversionRow),
    )
    for folder, kind in kinds:
        for path in sorted(folder.glob(f"{run}/*.json")):
            yield folder, read_as(kind, path)
