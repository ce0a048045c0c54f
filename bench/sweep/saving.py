"""Samples of cells as files: `<experiment>/samples/<run>/g4-steps1-seed0`.

Rules other than CFG are in the name, as in `g4-apg-steps18-seed0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import Dataset
from bench.data.samples.card import SampleCard, class_names
from bench.data.samples.write import SampleWriter, check_format, first_missing
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.sweep.cells import Cell
from bench.system.errors import UserError
from methods.rules import Rule, make_rule

KINDS = ("png", "zip", "npz")
SUFFIX = {"png": "", "zip": ".zip", "npz": ".npz", "grid": ".png"}


@dataclass(frozen=True)
class SampleFiles:
    """The place and format of the samples of cells; vectors are always npz."""

    experiment: Experiment
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"--save-samples is {', '.join(KINDS)}, got {self.kind!r}.", code=2)

    def place(self, cell: Cell, data: Dataset) -> tuple[Path, str]:
        """File or folder of a cell, and its format."""
        kind = self.kind if data.spec.is_image else "npz"
        return sample_path(self.experiment, cell, kind), kind

    def check(self, cells: Sequence[Cell], data: Dataset) -> None:
        """UserError if files of other settings are in the way; called before sampling."""
        for cell in cells:
            self.start(cell, data, 1)

    def start(self, cell: Cell, data: Dataset, batch: int) -> int:
        """The first sample to make, at the start of a batch; `cell.n` if all are there."""
        path, kind = self.place(cell, data)
        card = make_sample_card(cell, data)
        check_format(kind, card)
        return batch_start(first_missing(path, kind, card), cell.n, batch)

    def open(self, cell: Cell, data: Dataset, start: int = 0) -> SampleWriter:
        """A writer for the batches of a cell from `start` on."""
        path, kind = self.place(cell, data)
        return SampleWriter(path, kind, make_sample_card(cell, data), start)


def sample_path(experiment: Experiment, cell: Cell, kind: str) -> Path:
    """The default path of the samples of a cell."""
    rule = f"{rule_folder(cell.guidance.rule)}-" if cell.rule else ""
    sampler = cell.sampler
    how = "" if sampler.is_usual else f"{sampler.solver}-{sampler.grid}-"
    how += "" if cell.labels == "balanced" else f"{cell.labels}-"
    scale = f"g{cell.guidance.scale:g}"
    name = f"{scale}-{rule}{how}steps{cell.steps}-seed{cell.seed}{SUFFIX[kind]}"
    return experiment.samples / cell.run.name / name


def rule_folder(rule: Rule[Any]) -> str:
    """A rule in a file name: "apg", with a hash of its knobs if they are not the defaults."""
    knobs = rule.settings()
    if knobs == make_rule(rule.name).settings():
        return rule.name
    return f"{rule.name}-{digest(knobs)[:8]}"


def batch_start(have: int, n: int, batch: int) -> int:
    """The index at which to resume with `have` of n samples: a multiple of `batch`.

    Batches stay whole, because rounding differs between batches of other composition.
    """
    return have if have >= n else have // batch * batch


def make_sample_card(cell: Cell, data: Dataset, classes: Sequence[int] | None = None) -> SampleCard:
    """The card of a cell's samples, or only of those of some classes."""
    spec = data.spec
    classes = cell.classes if classes is None else classes
    return SampleCard(
        **{name: value for name, value in cell.about().items() if name in SampleCard.model_fields},
        shape=spec.shape,
        classes=tuple(range(spec.num_classes)) if classes is None else tuple(classes),
        class_names=class_names(data, spec),
        cell=cell.key,
    )
