"""The rows of inversions and the keys that identify them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data import Dataset, Split
from bench.evaluation.makers import Makers
from bench.experiment.identity import code_hash, digest, module_hash
from bench.experiment.inversion_rows import read_inversion
from bench.experiment.place import Experiment
from bench.experiment.rows import row_path
from bench.inversion.measure import AUTHORS_BATCH, Editor, lpips_or_reason
from bench.system.errors import UserError
from bench.training.run import Run, load_nets
from methods import Guidance, Inverts
from metrics.base import Extractor
from metrics.perceptual import LPIPS

EVERY_CLASS = 10
"""With at most this many classes an image is edited to each other class, else to the next."""
VERSION = 1
"""Version of the measurement; part of the key."""
MEASURES = ("metrics.reconstruction", "metrics.latents", "metrics.perceptual")


@dataclass(frozen=True)
class Bench:
    """Shared by all rows of a data set: images, judge, LPIPS or the reason why there is none."""

    data: Dataset
    split: Split
    judge: Extractor
    lpips: LPIPS | None
    no_lpips: str


@dataclass(frozen=True)
class InversionCell:
    """One row: a run at one guidance scale of editing; `skip` is a reason or ''."""

    run: Run
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


def cannot_invert(run: Run) -> str:
    """The reason why a run cannot be inverted, or ''."""
    if not isinstance(run.method, Inverts):
        return f"{run.card.method} maps no image to a latent"
    if run.decoder is not None:
        return "it models latents of a decoder, and images are not encoded here"
    return ""


def plan_inversions(
    run: Run, guidance: Sequence[float], bench: Bench, *, batch: int = AUTHORS_BATCH
) -> list[InversionCell]:
    """The rows of a run, skipped ones included."""
    found = []
    measure = [VERSION, *(module_hash(name) for name in MEASURES)]
    for scale in guidance:
        g = Guidance(scale)
        skip = cannot_invert(run) or run.method.supports(g, run.card.steps[0]) or ""
        key = digest(
            {
                "measure": measure,
                "method": run.card.method,
                "code": code_hash(type(run.method)),
                "config": run.card.config,
                "data": run.card.data_hash,
                "checkpoint": run.checkpoint,
                "guidance": scale,
                "images": bench.split.hash,
                "n": len(bench.split),
                "judge": bench.judge.hash,
                "lpips": bench.lpips.hash if bench.lpips else "",
                "batch": batch,
            }
        )
        found.append(InversionCell(run, g, skip, key))
    return found


def balanced(labels: Tensor, n: int) -> Tensor:
    """Ascending indices of at most n samples: the first of each class, equally many per class.

    The counts differ if n is not a multiple of the number of classes or a class has too few.
    """
    rank = torch.empty_like(labels)
    for label in sorted(set(labels.tolist())):
        own = labels == label
        rank[own] = torch.arange(int(own.sum()))
    classes = int(labels.max()) + 1
    return (rank * classes + labels).argsort()[:n].sort().values


def edit_targets(labels: Tensor, classes: int) -> list[Tensor]:
    """Target classes (N,) of images of classes `labels` (N,), one tensor per edit."""
    offsets = range(1, classes) if classes <= EVERY_CLASS else range(1, min(2, classes))
    return [(labels + offset) % classes for offset in offsets]


def kept(cell: InversionCell, experiment: Experiment) -> bool:
    """Whether a result is stored."""
    path = row_path(experiment.inversions, cell.run.name, cell.key)
    return path.exists() and read_inversion(path).status in ("ok", "diverged")


def make_editor(run: Run, batch: int, device: torch.device) -> Editor:
    """An editor of a run; UserError if the run cannot be inverted."""
    reason = cannot_invert(run)
    if reason or not isinstance(run.method, Inverts):
        raise UserError(f"Run {run.card.name!r} cannot be used: {reason}.", code=2)
    return Editor(run.method, run.method, load_nets(run, device), batch, device)
