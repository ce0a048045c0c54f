"""A few random kills, in a separate process because it forks; `make torture` has more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.driver import KINDS

KILLS = 20


@pytest.mark.long
def test_killed_commands_end_as_if_undisturbed(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.torture", "--kills", str(KILLS), "--seed", "7"]
    ran = subprocess.run(
        [*command, "--out", str(out)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    chains = json.loads(out.read_text())["chains"]
    assert sum(chain["kills"] for chain in chains) >= KILLS
    assert len({chain["kind"] for chain in chains}) >= len(KINDS)
    for chain in chains:
        assert chain["resumed"]
        assert [*chain["lost"], *chain["corrupt"], *chain["problems"]] == []
