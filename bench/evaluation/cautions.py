"""Warnings about a comparison: too few samples, other sample counts or sizes than usual."""

from __future__ import annotations

from bench.evaluation.plan import Plan
from bench.evaluation.reference import Reference
from bench.evaluation.sides import SampleSource
from bench.experiment.protocols import Protocol
from bench.system.errors import UserError

FEW = 10_000
"""Images below which a Frechet distance of Inception features is mostly its own bias."""


def cautions(
    plan: Plan, fake: SampleSource, reference: Reference, protocol: Protocol | None
) -> list[str]:
    """One sentence for each warning; UserError if the two sides cannot be compared at all."""
    side = reference.side
    found = []
    if side is not None:
        found += _sizes(fake, side)
    found += [_copies(each) for each in (fake, side) if each is not None and each.copies]
    for p in plan.measurements:
        if not p.metric.about.plug_in or not p.extractor:
            continue
        dim = plan.made[p.extractor].dim
        if fake.n <= dim:
            found.append(
                f"{fake.n:,} samples do not exceed the {dim:,} dimensions of {p.extractor}, so "
                f"{p.metric.name} is mostly bias, and fd_corrected does not remove it here: "
                "compare it only at this n, or use kid."
            )
        elif fake.n < FEW and p.extractor.startswith("inception"):
            found.append(
                f"{p.metric.name} of {fake.n:,} samples is well above that of {FEW:,} or 50,000: "
                "compare it only at this n, or use fd_corrected or kid."
            )
    if protocol is None:
        return found
    real = side.n if side is not None else reference.statistics.n if reference.statistics else 0
    for what, n, wanted in (
        ("generated", fake.n, protocol.samples),
        ("real", real, protocol.reference),
    ):
        if n and wanted is not None and n != wanted:
            found.append(f"{protocol.name} uses {wanted:,} {what} images; here are {n:,}.")
    return found


def _sizes(fake: SampleSource, real: SampleSource) -> list[str]:
    if fake.is_image != real.is_image or (not fake.is_image and fake.shape != real.shape):
        kinds = [f"{'images' if s.is_image else 'vectors'} {s.shape}" for s in (fake, real)]
        raise UserError(
            f"{fake.name} holds {kinds[0]} and {real.name} {kinds[1]}: they cannot be compared.",
            code=2,
        )
    found = []
    if fake.shape[1:] != real.shape[1:]:
        found.append(
            f"samples have {_pixels(fake)} and the reference {_pixels(real)}: each is resized "
            "separately, and that changes the distance."
        )
    if fake.shape[0] != real.shape[0] and fake.is_image:
        found.append("one side is grey and the other in colour.")
    return found


def _copies(side: SampleSource) -> str:
    if side.copies == side.n - 1:
        return f"all {side.n:,} samples of {side.name} are equal: metrics of them mean nothing."
    return f"{side.copies:,} of the {side.n:,} samples of {side.name} are copies of others in it."


def _pixels(side: SampleSource) -> str:
    return f"{side.shape[2]} x {side.shape[1]} pixels"
