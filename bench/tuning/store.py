"""Trials and results of the tuner on disk: one JSON file each, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from bench.experiment.rows import Frozen
from bench.system.bounds import read_json
from bench.system.files import write_text

M = TypeVar("M", bound=Frozen)


class ScaleValue(Frozen):
    """The metric of a trial at one guidance scale."""

    guidance: float
    value: float
    se: float | None = None
    outcomes: Mapping[str, tuple[float, float]] = Field(
        default_factory=dict, description="effects of guidance with their standard errors"
    )


class Trial(Frozen):
    """One setting of the knobs, sampled and measured at every scale."""

    index: int = Field(ge=0)
    kind: Literal["default", "spread", "near"]
    point: tuple[float, ...] = Field(description="in the unit cube of the search space")
    knobs: Mapping[str, Any] = Field(description="all settings of the rule, by rule.knob")
    status: Literal["ok", "diverged", "failed"]
    reason: str = ""
    values: tuple[ScaleValue, ...] = ()
    score: float | None = Field(None, description="of the objective, lower is better")
    seconds: float = 0.0
    created: str


class Aim(Frozen):
    """The objective, and the samples that it is measured on."""

    metric: str
    extractor: str
    signature: str = Field(description="SHA-256 of metric, extractor and reference")
    direction: Literal["lower", "higher"]
    log: bool = Field(description="whether its logarithm is averaged over the scales")
    guidance: tuple[float, ...]
    steps: int
    samples: int
    seed: int
    reference: str
    reference_hash: str
    outcomes: tuple[str, ...] = Field(
        (), description="at the first that guidance raises, values are compared with CFG's"
    )

    def what(self, outcome: str = "") -> str:
        """The objective in words; `outcome` is the one that was chosen."""
        name = " ".join(part for part in (self.metric, self.extractor) if part)
        kind = "geometric mean" if self.log else "mean"
        if outcome:
            name += f", {'over' if self.log else 'less'} that of CFG at equal {outcome},"
        return f"{kind} of {name} over g = {', '.join(f'{g:g}' for g in self.guidance)}"


class Tuned(Frozen):
    """The result for a run and a rule; valid only for the hashes in `subject`."""

    run: str
    dataset: str
    method: str
    rule: str
    subject: Mapping[str, str] = Field(description="hashes of what the knobs were tuned for")
    aim: Aim
    search: Mapping[str, str] = Field(description="the range of each searched knob")
    budget: int
    outcome: str = Field("", description="values are compared with CFG's where this is equal")
    best: int = Field(description="index of the best trial")
    knobs: Mapping[str, Any] = Field(description="those of the best trial, by rule.knob")
    score: float
    default_score: float | None
    trials: tuple[Trial, ...]
    created: str
    provenance: Mapping[str, str] = Field(default_factory=dict)


def result_path(tuned: Path, run: str, rule: str) -> Path:
    """The file of a result."""
    return tuned / run / f"{rule}.json"


def trials_folder(tuned: Path, run: str, rule: str, key: str) -> Path:
    """The folder of a search; `key` is the hash of everything that it depends on."""
    return tuned / run / rule / key[:16]


def trial_path(folder: Path, index: int) -> Path:
    """The file of a trial."""
    return folder / f"{index:04d}.json"


def write_entry(path: Path, entry: Frozen) -> None:
    """Write a trial or a result."""
    write_text(path, entry.model_dump_json(indent=1) + "\n")


def read_result(path: Path) -> Tuned:
    """Read a result; a damaged file is a UserError that names it."""
    return _read(path, Tuned, "a result of bench tune")


def read_trial(path: Path) -> Trial:
    """Read a trial; a damaged file is a UserError that names it."""
    return _read(path, Trial, "a trial of bench tune")


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a search in their order, up to the first that is missing."""
    found: list[Trial] = []
    while (path := trial_path(folder, len(found))).exists():
        found.append(read_trial(path))
    return found


def _read(path: Path, kind: type[M], what: str) -> M:
    return read_json(path, kind.model_validate_json, what, "remove it and tune again")
