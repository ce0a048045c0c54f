"""Where weights are looked for on this machine, and how they get there when that is asked for."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from metrics.extractors.weights_table import WeightsFile

WEIGHTS_FOLDER_VARIABLE = "GUIDANCE_BENCH_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".safetensors")


class MissingWeights(FileNotFoundError):
    """The weights file is not there, and no download was asked for."""


@dataclass(frozen=True)
class Found:
    """A file of weights, and whether it has to be the published one to be used."""

    path: Path
    published: bool


def weights_folders() -> list[Path]:
    """Where the weights are looked for, first to last; a download goes to the first.

    The folder named by $GUIDANCE_BENCH_WEIGHTS, or a per-user cache folder; then the checkpoints
    of torch.hub, where torch-fidelity puts the same files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    first = Path(own).expanduser() if own else cache / "guidance-bench" / "weights"
    return [first, Path(torch.hub.get_dir()) / "checkpoints"]


def find_weights(
    wanted: WeightsFile, given: Path | None = None, *, download: bool = False
) -> Found:
    """Find a weights file; `given` is a file, or a folder instead of `weights_folders`.

    A file that is found by its published name must be the published one; one that is given is the
    caller's choice. MissingWeights if there is none. `download` fetches it from the address in the
    table and refuses it unless its SHA-256 is as published.
    """
    if given is not None and (given.is_file() or given.suffix in SUFFIXES):
        if given.is_file():
            return Found(given, published=False)
        folders, file = [given.parent], given.name
    else:
        folders, file = (weights_folders() if given is None else [given]), wanted.file
    for folder in folders:
        for name in dict.fromkeys((file, *wanted.also)):
            if (folder / name).is_file():
                return Found(folder / name, published=name == wanted.file)
    target = folders[0] / file
    if not download:
        raise MissingWeights(
            f"{wanted.title} weights {target.name} ({wanted.hash_words}) are not in "
            f"{target.parent}: put the file there, or allow its download with download=True"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(
        wanted.url, str(target), hash_prefix=wanted.sha256 or None, progress=False
    )
    return Found(target, published=file == wanted.file)


def check_published(found: Found, wanted: WeightsFile, content: bytes | None = None) -> str:
    """SHA-256 of the content, by default the file's; "" where no hash is published and none given.

    ValueError if a file under a published name has another SHA-256 than the published one.
    """
    if content is not None:
        sha256 = hashlib.sha256(content).hexdigest()
    elif found.published and wanted.sha256:
        with found.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        return ""
    if found.published and not wanted.matches(sha256):
        raise ValueError(
            f"{found.path} does not hold the weights of this network: its SHA-256 begins "
            f"{sha256[:8]}, that of the published file {wanted.sha256[:8]}; remove it and fetch it "
            "again, or name the file itself if other weights are meant"
        )
    return sha256


def find_files(wanted: WeightsFile) -> list[Found]:
    """Every file, in all `weights_folders`, that could be read as the one wanted."""
    names = (wanted.file, *wanted.also)
    places = [folder / name for folder in dict.fromkeys(weights_folders()) for name in names]
    return [Found(path, published=path.name == wanted.file) for path in places if path.is_file()]
