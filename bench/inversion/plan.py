"""Which rows of inversions there are, and what each of them depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.data import Dataset, Split
from bench.evaluation.makers import Makers
from bench.experiment.identity import code_hash, digest, module_hash
from bench.experiment.inversion_rows import read_inversion
from bench.experiment.place import Experiment
from bench.experiment.rows import row_path
from bench.inversion.choose import balanced, edit_targets
from bench.inversion.measure import AUTHORS_BATCH, Editor, lpips_or_reason
from bench.system.errors import UserError
from bench.training.run import Run, load_nets
from methods import Guidance, Inverts
from metrics.base import Extractor
from metrics.perceptual import LPIPS

VERSION = 1
"""Of what `bench.inversion.sweep` measures; another one makes rows old."""
MEASURES = ("metrics.reconstruction", "metrics.latents", "metrics.perceptual")


@dataclass(frozen=True)
class Bench:
    """What all rows of one data set share: images, judge, LPIPS or why there is none."""

    data: Dataset
    split: Split
    judge: Extractor
    lpips: LPIPS | None
    no_lpips: str


@dataclass(frozen=True)
class InversionCell:
    """One row: a run at one guidance scale of editing; `skip` is a reason or ''."""

    target: Run
    guidance: Guidance
    skip: str
    key: str


def prepare_bench(data: Dataset, samples: int, experiment: Experiment) -> Bench:
    """Images, judge and LPIPS for a data set of images."""
    judge = Makers(experiment.cache).make("classifier", data)
    index = balanced(data.reference.labels, samples)
    split = Split(data.reference.samples[index], data.reference.labels[index])
    lpips, why_not = lpips_or_reason(data.spec.shape[1:])
    return Bench(data, split, judge, lpips, why_not)


def cannot_invert(target: Run) -> str:
    """Why a run is not inverted, '' where it is."""
    if not isinstance(target.method, Inverts):
        return f"{target.card.method} maps no image to a latent"
    return ""


def plan_inversions(
    target: Run, guidance: Sequence[float], bench: Bench, *, batch: int = AUTHORS_BATCH
) -> list[InversionCell]:
    """The rows of a run, skipped ones included."""
    found = []
    measure = [VERSION, *(module_hash(name) for name in MEASURES)]
    for scale in guidance:
        g = Guidance(scale)
        skip = cannot_invert(target) or target.method.supports(g, target.card.steps[0]) or ""
        key = digest(
            {
                "measure": measure,
                "method": target.card.method,
                "code": code_hash(type(target.method)),
                "config": target.card.config,
                "data": target.card.data_hash,
                "checkpoint": target.checkpoint,
                "guidance": scale,
                "images": bench.split.hash,
                "n": len(bench.split),
                "judge": bench.judge.hash,
                "lpips": bench.lpips.hash if bench.lpips else "",
                "batch": batch,
            }
        )
        found.append(InversionCell(target, g, skip, key))
    return found


def kept(planned: InversionCell, experiment: Experiment) -> bool:
    """Whether the row is there and is a result."""
    path = row_path(experiment.inversions, planned.target.card.name, planned.key)
    return path.exists() and read_inversion(path).status in ("ok", "diverged")


def nfe_missing(
    rows: Sequence[InversionCell], bench: Bench, experiment: Experiment
) -> tuple[int, int]:
    """Number of rows still to compute, and their network evaluations."""
    missing = [p for p in rows if not p.skip and not kept(p, experiment)]
    edits = len(bench.split) * len(edit_targets(bench.split.labels, bench.data.spec.num_classes))
    total = 0
    seen: set[str] = set()
    for planned in missing:
        method = planned.target.method
        assert isinstance(method, Inverts)
        total += edits * method.edit_nfe(planned.guidance)
        if planned.target.card.name not in seen:
            seen.add(planned.target.card.name)
            once = method.inversion_nfe() + method.edit_nfe(Guidance(1.0))
            total += len(bench.split) * once
    return len(missing), total


def make_editor(target: Run, batch: int, device: torch.device) -> Editor:
    """The run ready for inverting; a UserError for one that does not."""
    reason = cannot_invert(target)
    if reason or not isinstance(target.method, Inverts):
        raise UserError(f"Run {target.card.name!r} cannot be used: {reason}.", code=2)
    return Editor(target.method, target.method, load_nets(target, device), batch, device)
