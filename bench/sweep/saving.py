"""The samples of a sweep's cells as files: `<experiment>/samples/<run>/g4-steps1-seed0`.

The name carries the guidance rule where it is not CFG, as in `g4-apg-steps18-seed0`.
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
    """Where the samples of cells go, in one of three formats; vectors always go to npz."""

    experiment: Experiment
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"--save-samples is {', '.join(KINDS)}, got {self.kind!r}.", code=2)

    def place(self, cell: Cell, data: Dataset) -> tuple[Path, str]:
        """File or folder of a cell, and the format it has there."""
        kind = self.kind if data.spec.is_image else "npz"
        return sample_path(self.experiment, cell, kind), kind

    def check(self, cells: Sequence[Cell], data: Dataset) -> None:
        """UserError before anything is sampled if files of other settings are in the way."""
        for cell in cells:
            self.start(cell, data, 1)

    def start(self, cell: Cell, data: Dataset, batch: int) -> int:
        """The first sample to be made, at the start of a batch; `cell.n` if all are there."""
        path, kind = self.place(cell, data)
        card = make_sample_card(cell, data)
        check_format(kind, card)
        return batch_start(first_missing(path, kind, card), cell.n, batch)

    def open(self, cell: Cell, data: Dataset, start: int = 0) -> SampleWriter:
        """Takes the batches of a cell from `start` on."""
        path, kind = self.place(cell, data)
        return SampleWriter(path, kind, make_sample_card(cell, data), start)


def sample_path(experiment: Experiment, cell: Cell, kind: str) -> Path:
    """Where the samples of a cell go by default."""
    rule = f"{rule_folder(cell.guidance.rule)}-" if cell.rule else ""
    name = f"g{cell.guidance.scale:g}-{rule}steps{cell.steps}-seed{cell.seed}{SUFFIX[kind]}"
    return experiment.samples / cell.run.name / name


def rule_folder(rule: Rule[Any]) -> str:
    """A rule in a file's name: "apg", with a hash of its knobs where they are not the defaults."""
    knobs = rule.settings()
    if knobs == make_rule(rule.name).settings():
        return rule.name
    return f"{rule.name}-{digest(knobs)[:8]}"


def batch_start(have: int, n: int, batch: int) -> int:
    """Where to continue with `have` of n samples: at the batch of the first missing one.

    Rounding may differ between batches of different composition, so that batches stay whole.
    """
    return have if have >= n else have // batch * batch


def make_sample_card(cell: Cell, data: Dataset, classes: Sequence[int] | None = None) -> SampleCard:
    """The card of a cell's samples, or of the samples of some classes only."""
    spec = data.spec
    return SampleCard(
        run=cell.run.name,
        method=cell.run.card.method,
        dataset=cell.run.card.dataset,
        checkpoint=cell.run.checkpoint,
        guidance=cell.guidance.scale,
        rule=cell.rule,
        knobs=cell.guidance.rule.settings() if cell.rule else {},
        steps=cell.steps,
        nfe=cell.nfe,
        seed=cell.seed,
        n=cell.n,
        shape=spec.shape,
        classes=tuple(range(spec.num_classes)) if classes is None else tuple(classes),
        class_names=class_names(data, spec),
        cell=cell.key,
    )
