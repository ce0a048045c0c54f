"""What must be equal after a kill, and what must be whole."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from bench.data.card import STAMP
from bench.training.checkpoint import PREVIOUS, STATE

TIMES = (
    "created", "provenance", "seconds_per_image", "inversion_seconds", "edit_seconds",
    "content_sha256",
)  # fmt: skip
"""Keys of rows and cards that no two runs share: times, and what hashes these as well."""


def content(tree: Path) -> dict[str, str]:
    """A digest of every file by its name; without times, hosts and versions."""
    return {
        str(path.relative_to(tree)): _digest(path)
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == STAMP:  # times of change; a wrong one costs a look at the files
        data = b"" if json.loads(data).keys() == {"files", "source"} else data
    elif path.suffix == ".json":
        tree = json.loads(data)
        data = json.dumps({k: v for k, v in tree.items() if k not in TIMES}).encode()
    return hashlib.sha256(data).hexdigest()


def is_lease(name: str) -> bool:
    """Whether a hidden file is a lease, or what a killed process left of taking one over."""
    return ".lease" in name.rpartition("/")[2]


def leftovers(tree: Path, *, folders: bool = True) -> list[str]:
    """Temporary files, and the folders that they are in."""
    found = [path for path in tree.rglob("*") if folders or not path.is_dir()]
    names = [str(path.relative_to(tree)) for path in found]
    return [name for name in names if "/." in f"/{name}" or name.endswith(".tmp")]


def damaged(tree: Path) -> list[str]:
    """Visible files that a command would read and that are not whole. A log may end early."""
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
        except Exception as error:  # whatever a damaged file makes a reader raise
            found.append(f"{path.relative_to(tree)}: {type(error).__name__}: {error}")
    return found


def differing(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """Files that one tree lacks or that are not equal."""
    lacking = [f"{name} is missing" for name in sorted(expected.keys() - got.keys())]
    surplus = [f"{name} is too much" for name in sorted(got.keys() - expected.keys())]
    both = sorted(expected.keys() & got.keys())
    return lacking + surplus + [f"{k} differs" for k in both if expected[k] != got[k]]


def states(tree: Path) -> list[Path]:
    """The checkpoints of runs that are not finished, the newest ones first."""
    return [path for name in (STATE, PREVIOUS) for path in tree.rglob(name)]


def dated(tree: Path) -> dict[str, str]:
    """When each row was made, by its file: a row that is kept is not made again."""
    found = {}
    for path in tree.glob("results/*/cells/*/*.json"):
        row = json.loads(path.read_bytes())
        found[str(path.relative_to(tree))] = row["created"]
    return found
