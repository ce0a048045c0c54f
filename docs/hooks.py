"""Hooks of mkdocs: options and lists from the code, and figures from results/reference.

A page asks for the options of a command with `<!-- options: data prepare -->`, and for a list of
what is registered with `<!-- list: metrics -->`. Every command has a page in `commands/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from bench.cli.app import app

ROOT = Path(__file__).parents[1]
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
KINDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}
MARK = re.compile(r"<!-- (options|list): ([a-z ]+) -->")
FIGURE = re.compile(r"\]\(((?:\.\./)+)(results/reference/[\w./-]+\.png)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of all commands, and those of docs/ without a fixed place, into the menu."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and entry.get("Commands") == "commands":
            entry["Commands"] = [
                {f"bench {name}": f"commands/{name}.md"} for name in sorted(COMMANDS)
            ]
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    docs = Path(config.docs_dir)
    found = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    config.nav = [*(config.nav or []), *sorted(found - named)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figures that pages show."""
    docs = Path(config.docs_dir)
    texts = [path.read_text(encoding="utf-8") for path in docs.rglob("*.md")]
    for figure in sorted({path for text in texts for _, path in FIGURE.findall(text)}):
        files.append(File.generated(config, figure, abs_src_path=str(ROOT / figure)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in options and lists; link to the figures where the site has them."""
    markdown = FIGURE.sub(lambda m: f"]({m[1].removeprefix('../')}{m[2]})", markdown)
    return MARK.sub(lambda m: FILL[m[1]](m[2]), markdown)


def options(name: str) -> str:
    """The options of a command as tables, one per panel of its help; of a group, of all in it."""
    command: Any = COMMANDS[name.split()[0]]
    for part in name.split()[1:]:
        command = command.commands[part]
    if hasattr(command, "commands"):
        parts = [f"{name} {below}" for below in sorted(command.commands)]
        return "\n\n".join(f"## bench {part}\n\n{described(part)}" for part in parts)
    panels: dict[str, list[str]] = {}
    for param in command.params:
        if not getattr(param, "hidden", False) and param.name != "help":
            panels.setdefault(getattr(param, "rich_help_panel", None) or "", []).append(row(param))
    head = "| option | default | meaning |\n|---|---|---|\n"
    return "\n\n".join(
        (f"### {panel}\n\n" if panel else "") + head + "\n".join(lines)
        for panel, lines in panels.items()
    )


def described(name: str) -> str:
    """Help text and options of a command within a group."""
    group, _, below = name.partition(" ")
    return f"{cleandoc(COMMANDS[group].commands[below].help or '')}\n\n{options(name)}"


def row(param: Any) -> str:
    """An option as a line of a table."""
    names = [*param.opts, *param.secondary_opts] if param.opts[0].startswith("-") else []
    shown = ", ".join(f"`{name}`" for name in names) or f"`{param.name.upper()}`"
    taken = param.type_descriptor.annotation
    kind = KINDS.get(next(iter(get_args(taken)), taken), "TEXT")
    default = param.default
    if callable(default) or default is None or default is False or default == "":
        default = ""
    text = re.sub(r"([|<>])", r"\\\1", getattr(param, "help", None) or "")
    if names and not param.is_flag:
        shown += f" {kind}{' ...' if param.multiple else ''}"
    return f"| {shown} | {f'`{default}`' if default != '' else ''} | {text} |"


def registered(what: str) -> str:
    """What is registered, as `bench list` prints it."""
    from bench.experiment.protocols import PROTOCOLS
    from bench.plugins.catalogue import rule_knobs
    from methods import METHODS
    from methods.rules import RULES
    from metrics import METRICS
    from metrics.catalogue import SUMMARIES

    def lines() -> Iterator[tuple[str, ...]]:
        if what == "methods":
            yield "method", "guidance", "summary"
            yield from ((n, m.guidance, m.summary) for n, m in METHODS.items())
        elif what == "rules":
            yield "rule", "summary", "knobs"
            yield from ((n, r.summary, rule_knobs(r)) for n, r in RULES.items())
        elif what == "metrics":
            yield "metric", "better", "features", "by default", "at least n", "summary"
            yield from (
                (
                    n, m.direction, "extractor" if m.uses_extractor else "none",
                    "yes" if m.default else "", str(m.minimum_n), m.summary,
                )
                for n, m in METRICS.items()
            )  # fmt: skip
        elif what == "extractors":
            yield "extractor", "features", "summary"
            yield from ((n, str(e.dim or ""), e.summary) for n, e in SUMMARIES.items())
        else:
            yield "protocol", "what it computes"
            yield from ((n, p.described) for n, p in PROTOCOLS.items())

    head, *body = lines()
    table = [head, ("---",) * len(head), *((f"`{name}`", *rest) for name, *rest in sorted(body))]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table
    )


FILL = {"options": options, "list": registered}
