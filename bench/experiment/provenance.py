"""The provenance of a result: versions, commit, machine, time."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


def now() -> str:
    """UTC time to the microsecond, ISO 8601, so that rows sort by it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


@cache
def provenance() -> dict[str, str]:
    """Versions of the packages that influence numbers, the git commit, the platform."""
    found = {"python": platform.python_version(), "platform": platform.machine()}
    for package in (
        "guidance-bench",
        "torch",
        "numpy",
        "scikit-learn",
        "torch-fidelity",
        "diffusers",
    ):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["commit"] = _commit()
    return found


def _commit() -> str:
    """The commit of this checkout, with '+' if files differ from it; '' outside git."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name) == "":
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
