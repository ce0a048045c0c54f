"""Checks after a kill: equal content and undamaged files."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from bench.data.card import STAMP
from bench.training.checkpoint import PREVIOUS, STATE

TIMES = (
    "created", "provenance", "seconds_per_image", "cpu_share", "inversion_seconds", "edit_seconds",
    "content_sha256",
)  # fmt: skip
"""Keys of rows and cards that differ between any two runs: times, and hashes that cover them."""


def content(tree: Path) -> dict[str, str]:
    """A digest of every file by name, without times, hosts and versions."""
    return {
        str(path.relative_to(tree)): _digest(path)
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == STAMP:  # modification times; if wrong, the files are only read again
        data = b"" if json.loads(data).keys() == {"files", "source"} else data
    elif path.suffix == ".json":
        tree = json.loads(data)
        data = json.dumps({k: v for k, v in tree.items() if k not in TIMES}).encode()
    return hashlib.sha256(data).hexdigest()


def is_lease(name: str) -> bool:
    """Whether a hidden file is a lease, or a remnant of taking one over."""
    return ".lease" in name.rpartition("/")[2]


def leftovers(tree: Path, *, folders: bool = True) -> list[str]:
    """Temporary and hidden files and folders, with all files in such folders."""
    found = [path for path in tree.rglob("*") if folders or not path.is_dir()]
    names = [str(path.relative_to(tree)) for path in found]
    return [name for name in names if "/." in f"/{name}" or name.endswith(".tmp")]


def damaged(tree: Path) -> list[str]:
    """Visible files that a command would read and that are damaged. A log may end early."""
    found = []
    for path in tree.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(tree).parts)
        if hidden or not path.is_file():
            continue
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix in (".npz", ".npy"):
                loaded = np.load(path, allow_pickle=False)
                if path.suffix == ".npz":
                    [loaded[name] for name in loaded.files]
        except Exception as error:  # a damaged file may make a reader raise anything
            found.append(f"{path.relative_to(tree)}: {type(error).__name__}: {error}")
    return found


def differing(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """Files that are missing from one tree or that differ."""
    lacking = [f"{name} is missing" for name in sorted(expected.keys() - got.keys())]
    surplus = [f"{name} is unexpected" for name in sorted(got.keys() - expected.keys())]
    both = sorted(expected.keys() & got.keys())
    return lacking + surplus + [f"{k} differs" for k in both if expected[k] != got[k]]


def states(tree: Path) -> list[Path]:
    """The checkpoints of unfinished runs, newest first."""
    return [path for name in (STATE, PREVIOUS) for path in tree.rglob(name)]


def dated(tree: Path) -> dict[str, str]:
    """Creation time of each row by its file: a row that is kept is not recomputed."""
    found = {}
    for path in tree.glob("results/*/cells/*/*.json"):
        row = json.loads(path.read_bytes())
        found[str(path.relative_to(tree))] = row["created"]
    return found
