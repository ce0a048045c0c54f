"""Published weights of extractors: search, download and verification."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.system.errors import UserError
from bench.system.files import sha256
from metrics.catalogue import WeightsFile

WEIGHTS_FOLDER_VARIABLE = "GUIDANCE_BENCH_WEIGHTS"
SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class WeightsPath:
    """A weights file; `published` files are used only with the published SHA-256."""

    path: Path
    published: bool


def weights_folders() -> list[Path]:
    """The folders searched for weights, in order; a download goes to the first.

    The folder named by $GUIDANCE_BENCH_WEIGHTS, or a per-user cache folder; then the checkpoints
    of torch.hub, where torch-fidelity puts the same files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    first = Path(own).expanduser() if own else cache / "guidance-bench" / "weights"
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub"
    return [first, hub.expanduser() / "checkpoints"]


def find_weights(
    wanted: WeightsFile, given: Path | None = None, *, download: bool = False
) -> WeightsPath:
    """Find a weights file; `given` is a file, or a folder instead of `weights_folders`.

    A file with a published name must have the published content; a given file may be any.
    `download` fetches a missing file and checks its SHA-256. UserError if there is none.
    """
    if given is not None and (given.is_file() or given.suffix in SUFFIXES):
        if given.is_file():
            return WeightsPath(given, published=False)
        folders, file = [given.parent], given.name
    else:
        folders, file = (weights_folders() if given is None else [given]), wanted.file
    found = _in_folders(folders, file, wanted)
    if found:
        return found[0]
    target = folders[0] / file
    if not download:
        raise UserError(
            f"{wanted.title} weights {target.name} ({wanted.hash_words}) are not in "
            f"{target.parent}: put the file there, or allow its download with --download."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    from torch import hub  # it takes two seconds to import, and `bench list` needs only paths

    hub.download_url_to_file(
        wanted.url, str(target), hash_prefix=wanted.sha256 or None, progress=False
    )
    return WeightsPath(target, published=file == wanted.file)


def find_files(wanted: WeightsFile) -> list[WeightsPath]:
    """All candidates for a weights file in `weights_folders`."""
    return _in_folders(weights_folders(), wanted.file, wanted)


def _in_folders(folders: Iterable[Path], file: str, wanted: WeightsFile) -> list[WeightsPath]:
    names = dict.fromkeys((file, *wanted.also))
    paths = [folder / name for folder in dict.fromkeys(folders) for name in names]
    return [
        WeightsPath(path, published=path.name == wanted.file) for path in paths if path.is_file()
    ]


def verified(found: WeightsPath, wanted: WeightsFile) -> Path:
    """The file; ValueError if it has a published name but not the published SHA-256."""
    content = sha256(found.path) if found.published and wanted.sha256 else ""
    if content and not wanted.matches(content):
        raise ValueError(
            f"{found.path} does not hold the weights of this network: its SHA-256 begins "
            f"{content[:8]}, that of the published file {wanted.sha256[:8]}; remove it and fetch "
            "it again, or name the file itself if other weights are meant"
        )
    return found.path
