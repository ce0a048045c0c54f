"""Writes statistics files of EDM, ADM, clean-fid and torch-fidelity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.evaluation.statistics.base import ABOUT, StatisticsCard
from bench.system.errors import UserError
from bench.system.files import atomic_file
from metrics.base import Moments

FORMATS = ("edm", "adm", "clean-fid", "torch-fidelity")
SUFFIX = {"edm": ".npz", "adm": ".npz", "clean-fid": ".npz", "torch-fidelity": ".pt"}


def clean_fid_name(
    name: str, mode: str = "clean", split: str = "custom", res: str = "na", *, kid: bool = False
) -> str:
    """The lower-case file name under which clean-fid searches for statistics, or features (`kid`).

    `compute_fid(dataset_name=name, dataset_res=res, dataset_split=split)` finds it in the folder
    `stats` of the installed package.
    """
    return f"{name}_{mode}_{split}_{res}{'_kid' if kid else ''}.npz".lower()


def torch_fidelity_name(name: str, layer: str = "2048") -> str:
    """The file name in the cache folder of torch-fidelity for `input1_cache_name=name`."""
    return f"{name}-inception-v3-compat-stat-fid-{layer}.pt"


def write_statistics(
    path: Path,
    kind: str,
    moments: Moments,
    card: StatisticsCard,
    *,
    spatial: Moments | None = None,
    features: npt.NDArray[np.float32] | None = None,
) -> list[Path]:
    """Write one of `FORMATS` atomically; returns the files.

    npz files also hold the card, in a member that other readers ignore. "clean-fid" adds a second
    file of `features`, used for KID; "adm" needs `spatial`, because its reader wants both pairs.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, got {kind!r}")
    if kind == "torch-fidelity":
        with atomic_file(path) as file:
            # Its reader checks types: the mean must be float32, the covariance float64.
            torch.save({"mu": moments.mean.astype(np.float32), "sigma": moments.cov}, file)
        return [path]
    arrays: dict[str, Any] = {"mu": moments.mean, "sigma": moments.cov}
    if kind == "adm":
        if spatial is None:
            raise UserError(
                "ADM's file needs spatial statistics beside those of pooled features, which only "
                "--extractor inception has.",
                code=2,
            )
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.cov}
    arrays[ABOUT] = np.array([card.model_dump_json()])
    _save(path, arrays)
    if kind != "clean-fid":
        return [path]
    if features is None:
        raise ValueError("clean-fid's files need features")
    beside = path.with_name(f"{path.stem}_kid.npz")
    _save(beside, {"feats": features, ABOUT: arrays[ABOUT]})
    return [path, beside]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
