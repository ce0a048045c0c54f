"""The figures that earlier reports drew: one whose input is unchanged is not drawn again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

import bench
import metrics
from bench.experiment.identity import digest
from bench.experiment.rows import Frozen
from bench.report.document import FileKind
from bench.report.figures.figures import Plan
from bench.report.numbers.frame import Data
from bench.system.bounds import Name
from bench.system.files import read_whole, sha256, write_bytes

RECORD = "drawn.json"
LIBRARIES = ("matplotlib", "numpy", "pillow", "scipy")


class DrawnFigure(Frozen):
    """One figure: what it was drawn from, and the SHA-256 of its files by name."""

    drawn_from: Name
    files: Mapping[Name, Name]


_RECORDS = TypeAdapter(dict[str, DrawnFigure])


class DrawnFigures:
    """The record of the figures in a report's folder, written after each figure."""

    def __init__(self, report: Path, kinds: Sequence[FileKind]) -> None:
        self._report = report
        self._kinds = kinds
        self._inputs = _Inputs()

    @cached_property
    def _record(self) -> dict[str, DrawnFigure]:
        try:
            return _RECORDS.validate_json(read_whole(self._report / RECORD))
        except (OSError, ValidationError):  # missing or damaged: everything is drawn
            return {}

    def files(self, plan: Plan) -> list[Path]:
        """The files of a figure that is drawn already; [] if it is to be drawn."""
        known = self._record.get(plan.name)
        if known is None or known.drawn_from != self._inputs.hash(plan):
            return []
        files = [self._report / "figures" / f"{plan.name}.{kind}" for kind in self._kinds]
        try:
            whole = all(known.files.get(file.name) == sha256(file) for file in files)
        except OSError:
            return []
        return files if whole else []

    def add(self, plan: Plan, files: Iterable[Path]) -> None:
        """Record a figure that was drawn."""
        found = {file.name: sha256(file) for file in files}
        self._record[plan.name] = DrawnFigure(drawn_from=self._inputs.hash(plan), files=found)
        self._write()

    def forget_others(self, names: Iterable[str]) -> None:
        """Drop what is not among the figures of this report and its kinds of files."""
        kept = {}
        for name in names:
            wanted = {f"{name}.{kind}" for kind in self._kinds}
            known = self._record[name]
            files = {file: hashed for file, hashed in known.files.items() if file in wanted}
            kept[name] = known.model_copy(update={"files": files})
        if kept != self._record:
            self._record = kept
            self._write()

    def _write(self) -> None:
        content = _RECORDS.dump_json(dict(sorted(self._record.items())), indent=1)
        write_bytes(self._report / RECORD, content + b"\n")


class _Inputs:
    """Hashes of what figures are drawn from; the rows of a data set are hashed once."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def hash(self, plan: Plan) -> str:
        """SHA-256 of everything that a figure depends on."""
        inputs = [
            self._of_rows(found, plan.dataset) if isinstance(found, Data) else repr(found)
            for found in plan.inputs
        ]
        return digest({"code": _code(), "drawing": plan.drawing, "inputs": inputs})

    def _of_rows(self, data: Data, dataset: str) -> str:
        """SHA-256 of the rows of a data set, and of how lines are named and coloured in all."""
        if dataset not in self._rows:
            lines = [(s.dataset, s.method, s.rule) for d in data.datasets for s in data.series(d)]
            rows = [row for row in data.rows if row.dataset == dataset]
            found = hashlib.sha256(repr((lines, data.methods)).encode())
            for row in rows:
                found.update(repr(data.series_of(row)).encode())
                found.update(row.model_dump_json().encode())
            for column in data.columns:
                if column.dataset == dataset:
                    found.update(repr((column, data.notes.get(column))).encode())
            self._rows[dataset] = found.hexdigest()
        return self._rows[dataset]


@cache
def _code() -> str:
    """SHA-256 of the source files that figures may depend on, and of the libraries that draw."""
    rooms = [Path(bench.__path__[0]) / name for name in ("report", "experiment", "system")]
    files = sorted(
        p for folder in (*rooms, Path(metrics.__path__[0])) for p in folder.rglob("*.py")
    )
    hashed = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digest({"files": hashed, "libraries": [version(name) for name in LIBRARIES]})
