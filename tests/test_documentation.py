"""The documentation against the code: commands, options, messages, columns and links."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from bench.api import COLUMNS
from bench.cli.app import app
from tests.documentation import DOCS, PAGES, ROOT, blocks

COMMANDS = get_command(app).commands
FOREIGN = {"--nproc-per-node"}
"""Options of other programs."""


def options_of(words):
    """The options of the command that these words call; fails if there is none such."""
    command, known = COMMANDS[words[0]], words[:1]
    for word in words[1:]:
        if not hasattr(command, "commands") or word.startswith("-"):
            break
        command, known = command.commands[word], [*known, word]
    return {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}


ALL = set().union(*(options_of([name]) for name in COMMANDS)) | {"--version"}
ALL |= {
    option
    for group, command in COMMANDS.items()
    for below in getattr(command, "commands", ())
    for option in options_of([group, below])
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_exists(page):
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    called = [words for block in blocks(page) for words in block.commands()]
    called += [shlex.split(s)[1:] for s in spans if s.startswith("bench ") and "…" not in s]
    for words in called:
        if not words or words[0] in ("COMMAND", "--help", "--version", "--install-completion"):
            continue
        assert words[0] in COMMANDS, (page.name, words)
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options_of(words), (page.name, words)
    mentioned = {re.split(r"[ =]", span)[0] for span in spans if span.startswith("--")}
    assert mentioned <= ALL | FOREIGN, page.name


def test_every_command_has_a_page_that_asks_for_its_options():
    pages = list((DOCS / "commands").glob("*.md"))
    assert sorted(page.stem for page in pages) == sorted(COMMANDS)
    for page in pages:
        assert f"<!-- options: {page.stem} -->" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def texts_of_code() -> str:
    """All texts in the code, with … for values."""
    found = []
    for package in ("bench", "methods", "metrics"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = (
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )  # fmt: skip
                    found.append("".join(map(str, parts)))
    return "\n".join(found)


def test_messages_of_troubleshooting_are_in_the_code():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `([^`]+)`$", page, re.MULTILINE)
    quoted = [q for q in quoted if q != "bench: command not found"]  # of the shell
    assert len(quoted) > 6
    code = texts_of_code()
    for message in quoted:
        for part in message.split("…"):
            assert part.strip() in code, message


def test_columns_of_load_are_documented():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    table = page[page.index("## The columns") :]
    named = [n for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
             for n in re.findall(r"`(\w+)`", line)]  # fmt: skip
    assert sorted(named) == sorted(COLUMNS)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


@pytest.mark.long
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "commands" / "sweep.html").read_text(encoding="utf-8")
    assert "--null-checkpoint" in page
    assert {path.stem for path in (tmp_path / "commands").glob("*.html")} == set(COMMANDS)
    assert "&lt;!-- list" not in page
    assert Path(tmp_path / "results/reference").is_dir()
