"""Errors of the command-line parser in one sentence."""

from __future__ import annotations

from typing import Any


def usage_error(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of a parser's error, None for any other exception.

    Recognised by what they offer and not by class: typer carries its own copy of click in newer
    versions, and uses the package in older ones.
    """
    if type(error).__name__ == "Abort":
        return "Stopped.", 130
    parsed: Any = error
    if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
        return None
    message = str(parsed.format_message()).strip()
    context = getattr(error, "ctx", None)
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        # Its help is printed already in newer versions, and is its message in older ones.
        return message or "Name a command.", int(parsed.exit_code)
    if context is None:
        return message, int(parsed.exit_code)
    if kind in ("NoSuchOption", "NoSuchOptionError"):
        options = sorted(o for p in context.command.params for o in p.opts if o.startswith("--"))
        message = f"{_sentence(message)} Available: {', '.join(options)}."
    elif "No such command" in message:
        message = f"{_sentence(message)} Available: {', '.join(sorted(context.command.commands))}."
    else:
        message = f"{_sentence(message)} See: {context.command_path} --help"
    return " ".join(message.split()), int(parsed.exit_code)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
