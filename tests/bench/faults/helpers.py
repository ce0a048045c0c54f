"""Checks after a fault: the command printed one sentence, and nothing is lost."""

import json
import re
from pathlib import Path

from tests.bench.helpers import Ran, contents

_TIMES = (
    "created",
    "seconds_per_image",
    "cpu_share",
    "inversion_seconds",
    "edit_seconds",
    "content_sha256",
)
"""Keys that differ between any two runs: times, and the hash that covers them."""


def check_sentence(ran: Ran, *words: str) -> None:
    """Check that a command failed with a non-zero status and a single line of text."""
    assert ran.code not in (0, None), ran.out
    lines = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, ran.err
    assert lines[0].endswith((".", "?")), lines[0]
    assert "Errno" not in lines[0], lines[0]
    for word in words:
        assert word in lines[0], lines[0]


def results(folder: Path) -> dict[str, object]:
    """Everything below a folder, except for times, which differ between two equal runs."""
    found: dict[str, object] = {}
    for name, content in contents(folder).items():
        if name.endswith("/work.json"):  # what the last command had to do
            continue
        if name.endswith(".json"):
            tree = json.loads(content)
            found[name] = {k: v for k, v in tree.items() if k not in _TIMES}
        else:
            found[name] = content
    return found


def leftovers(folder: Path) -> list[str]:
    """Files that no command should leave: temporary files and leases."""
    hidden = re.compile(r"(^|/)\.|\.tmp$")
    return [name for name in contents(folder) if hidden.search(name)]
