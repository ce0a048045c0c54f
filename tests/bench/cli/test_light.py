"""Commands that need no network import no torch, and those that draw nothing no matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.experiment.rows import write_row
from metrics.about import About
from tests.bench.report.factory import row, value

COMMANDS = {
    "version": ["--version"],
    "help": ["--help"],
    "help of a command": ["sweep", "--help"],
    "list suites": ["list", "suites"],
    "list protocols": ["list", "protocols"],
    "report": ["report"],
    "report of a suite": ["report", "--suite", "demo"],
}
# All in one process, in this order: what one of them imports is there for those after it.
RUN = """
import json, sys
from bench.cli import main
found = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["bench", *command]
    try:
        main()
    except SystemExit as end:
        found.append([end.code, sorted({"torch", "matplotlib"} & set(sys.modules))])
print("\\n" + json.dumps(found))
"""


def ran(commands, folder):
    process = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The exit code of every command and what it has imported; the reports are drawn before."""
    folder = tmp_path_factory.mktemp("light")
    for g in (1.0, 2.0):
        found = row("digits", "edm", g, value("fd", g, about=About(order=10)), key=f"{g:064}")
        for experiment in ("default", "demo"):
            write_row(folder / "results" / experiment / "cells", found)
    reports = [command for command in COMMANDS.values() if command[0] == "report"]
    assert ran(reports, folder) == [[0, ["matplotlib"]]] * 2
    return dict(zip(COMMANDS, ran(list(COMMANDS.values()), folder), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_imports_no_torch(imported, command):
    assert imported[command] == [0, []]
