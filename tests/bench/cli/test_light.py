"""Commands that need no network import no torch, and those that draw nothing no matplotlib."""

from __future__ import annotations

import json
import os
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
    "list rules": ["list", "rules"],
    "list datasets": ["list", "datasets"],
    "list extractors": ["list", "extractors"],
    "list launchers": ["list", "launchers"],
    "data list": ["data", "list"],
    "report": ["report"],
    "report of a suite": ["report", "--suite", "demo"],
}
ONLY_IMPORTED = (
    " Only from bench import: diffusers, dit, edm2, sit. To use your own: --plugin FILE."
)
TYPOS = {
    "method": (["train", "-m", "edn"], ONLY_IMPORTED),
    "rule": (["sweep", "--rule", "cfg+apgg"], "Unknown guidance rule 'apgg'. Did you mean 'apg'?"),
    "metric": (["sweep", "--metric", "kids"], "Unknown metric 'kids'. Did you mean 'kid'?"),
    "field's name of a metric": (["tune", "--metric", "FID"], "--metric fd --extractor inception"),
    "extractor": (["sweep", "--extractor", "Clip"], "Did you mean 'clip'?"),
    "data set": (["sweep", "-d", "digitz"], "Unknown data set 'digitz'. Did you mean 'digits'?"),
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
    """The exit code of every command and what it has imported, and all that was printed."""
    process = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    return json.loads(process.stdout.splitlines()[-1]), process


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The same by name; reports were drawn and installed plugins loaded by commands before."""
    folder = tmp_path_factory.mktemp("light")
    for g in (1.0, 2.0):
        found = row("digits", "edm", g, value("fd", g, about=About(order=10)), key=f"{g:064}")
        for experiment in ("default", "demo"):
            write_row(folder / "results" / experiment / "cells", found)
    reports = [command for command in COMMANDS.values() if command[0] == "report"]
    assert ran(reports, folder)[0] == [[0, ["matplotlib"]]] * 2
    assert ran([["list", "methods"]], folder)[0] == [[0, ["torch"]]]
    found, _ = ran(list(COMMANDS.values()), folder)
    wrong, process = ran([typed for typed, _ in TYPOS.values()], folder)
    return dict(zip([*COMMANDS, *TYPOS], [*found, *wrong], strict=True)), process.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command_imports_no_torch(imported, command):
    assert imported[0][command] == [0, []]


@pytest.mark.parametrize("name", TYPOS)
def test_typo_is_refused_without_torch(imported, name):
    assert imported[0][name] == [2, []]
    assert TYPOS[name][1] in imported[1]
