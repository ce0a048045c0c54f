"""Sampling seeds that belong to the tuner alone."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system.errors import UserError

TUNING_SEEDS = 1_000_000_000
"""The first of them. Knobs are chosen on samples of these seeds and of no others, so that what a
sweep measures afterwards is not what the choice was made by."""


def check_seeds(seeds: Sequence[int]) -> Sequence[int]:
    """The sampling seeds of a sweep; UserError for one that it may not use."""
    taken = [seed for seed in seeds if seed >= TUNING_SEEDS]
    if taken:
        raise UserError(
            f"Sampling seeds from {TUNING_SEEDS:,} up are kept for bench tune, got {taken[0]}: "
            "sweep smaller ones, so that no number rests on samples that knobs were chosen by.",
            code=2,
        )
    return seeds
