"""What a figure is drawn from."""

from __future__ import annotations

import hashlib

from bench.experiment.identity import digest
from bench.report.figures.figures import Plan
from bench.report.numbers.frame import Data
from bench.report.record import code


class FigureInputs:
    """Hashes of what figures are drawn from; the rows of a data set are hashed once."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def hash(self, plan: Plan) -> str:
        """SHA-256 of everything that a figure depends on."""
        inputs = [
            self._of_rows(found, plan.dataset) if isinstance(found, Data) else repr(found)
            for found in plan.inputs
        ]
        return digest({"code": code(), "drawing": plan.drawing, "inputs": inputs})

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
