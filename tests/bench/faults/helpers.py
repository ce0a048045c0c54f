"""What a command that met a fault must leave: one sentence, and nothing that is lost."""

import json
import re
from pathlib import Path

from tests.bench.helpers import Ran, contents

_TIMES = ("created", "seconds_per_image", "inversion_seconds", "edit_seconds", "content_sha256")
"""What no two runs share: times, and the hash that has them in it."""


def check_sentence(ran: Ran, *words: str) -> None:
    """A command that failed says so in one line, and exits with a status that is not 0."""
    assert ran.code not in (0, None), ran.out
    lines = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, ran.err
    assert lines[0].endswith((".", "?")), lines[0]
    assert "Errno" not in lines[0], lines[0]
    for word in words:
        assert word in lines[0], lines[0]


def results(folder: Path) -> dict[str, object]:
    """Everything below a folder without what differs between two equal runs: times."""
    found: dict[str, object] = {}
    for name, content in contents(folder).items():
        if name.endswith(".json"):
            tree = json.loads(content)
            found[name] = {k: v for k, v in tree.items() if k not in _TIMES}
        else:
            found[name] = content
    return found


def leftovers(folder: Path) -> list[str]:
    """Files that no command means to leave: temporary ones and leases."""
    hidden = re.compile(r"(^|/)\.|\.tmp$")
    return [name for name in contents(folder) if hidden.search(name)]
