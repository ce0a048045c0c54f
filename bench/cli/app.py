"""The command line: registers the commands and turns errors into messages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

from bench.cli.data import data_app
from bench.cli.doctor import doctor_command
from bench.cli.evaluate import evaluate_command
from bench.cli.importing import import_command
from bench.cli.init import init_command
from bench.cli.invert import edit_command, invert_command
from bench.cli.listing import list_command
from bench.cli.options import UNTIL_THE_END
from bench.cli.report import report_command
from bench.cli.sample import sample_command
from bench.cli.stats import stats_app
from bench.cli.status import status_command
from bench.cli.stored import move_command, remove_command
from bench.cli.sweep import sweep_command
from bench.cli.train import train_command
from bench.cli.tune import tune_command
from bench.cli.verify import verify_command
from bench.system.encoding import printing_anything
from bench.system.errors import UserError, explain
from bench.system.signals import StopFlag, signals_as_interrupts

if TYPE_CHECKING:
    from pydantic import ValidationError

app = typer.Typer(
    name="bench",
    help="Benchmark of guidance methods for diffusion and consistency models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
NAMED = ("method", "rule", "metric", "extractor", "dataset")
"""Options with names of registered things."""
UNCHECKED = ("list", "rm")
"""The commands whose names are those of stored rows, which may be of plugins."""
WITH_DATASET = ("train", "sweep")
"""The commands that need the data set of --dataset."""
STOPPED = "Stopped. Finished work is kept. Run the same command to continue."


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("guidance-bench"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Benchmark of guidance methods for diffusion and consistency models."""


class _Command(TyperCommand):
    """A command that refuses unknown names before it imports torch."""

    def invoke(self, ctx: Any) -> Any:
        """Check the names in the options, then run."""
        given = {name: _texts(ctx.params.get(name)) for name in NAMED}
        if ctx.info_name in UNCHECKED:
            given.clear()
        if ctx.info_name not in WITH_DATASET or ctx.params.get("data"):
            given.pop("dataset", None)  # it may be new, or gone
        by_others = any(ctx.params.get(name) for name in ("plugin", "model", "suite"))
        # The processes of torchrun know after their start which of them prints.
        if any(given.values()) and not by_others and "RANK" not in os.environ:
            from bench.plugins.catalogue import refuse_unknown

            refuse_unknown(given)
        return super().invoke(ctx)


def _texts(value: object) -> list[str]:
    """The values of an option that may be repeated, or of one that may not."""
    parts = value if isinstance(value, list | tuple) else [value] if value else []
    return [str(part) for part in parts]


_RUN, _USE, _STORED, _SET_UP = "Benchmark", "Samples and images", "Stored results", "Set-up"
for _panel, _name, _command, _example in (
    (_RUN, "train", train_command, "train -m edm -m igct -d modes1d --seeds 0..2"),
    (_RUN, "sweep", sweep_command, "sweep -g 1..13 --rule cfg,apg -n 300"),
    (_RUN, "report", report_command, "report --table-guidance 1,4,13"),
    (_RUN, "tune", tune_command, "tune -m edm --rule apg --budget 20"),
    (_USE, "sample", sample_command, "sample -m igct -g 4 -n 64 -o samples.png"),
    (_USE, "evaluate", evaluate_command, "evaluate folder/ -r digits"),
    (_USE, "invert", invert_command, "invert -m igct -d digits"),
    (_USE, "edit", edit_command, "edit -m igct -d digits --source-class 3 --target-class 8 -g 4"),
    (_STORED, "list", list_command, "list rows --method edm --status failed"),
    (_STORED, "rm", remove_command, "rm rows --method edm --guidance 9..13"),
    (_STORED, "mv", move_command, "mv run digits-edm-s0 teacher"),
    (_STORED, "verify", verify_command, "verify"),
    (_STORED, "status", status_command, "status --watch"),
    (_SET_UP, "init", init_command, "init my-suite.toml"),
    (_SET_UP, "import", import_command, "import checkpoint.pkl --as official"),
    (_SET_UP, "doctor", doctor_command, "doctor"),
):
    app.command(_name, cls=_Command, rich_help_panel=_panel, epilog=f"Example: bench {_example}")(
        _command
    )
app.add_typer(data_app, name="data", rich_help_panel=_SET_UP)
app.add_typer(stats_app, name="stats", rich_help_panel=_USE)


@cache
def parser() -> Any:
    """The parser of all commands, which takes a twentieth of a second to make."""
    from typer.main import get_command

    return get_command(app)


def main() -> None:
    """Entry point: prints a UserError as a message on stderr and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        printing_anything(stream)
    stop = StopFlag()
    try:
        with signals_as_interrupts() as stop, UNTIL_THE_END:
            code = parser()(prog_name="bench", standalone_mode=False)
            if code == INTERRUPTED:  # newer versions of typer return this on Ctrl-C
                raise KeyboardInterrupt
        sys.stdout.flush()  # a failure to print must show here, not when the interpreter exits
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _complain(str(error), error.code)
    except BrokenPipeError:  # the reader has closed the pipe, such as `| head`
        _hush()
        sys.exit(1)
    except KeyboardInterrupt:
        _complain(STOPPED, INTERRUPTED)
    except Exception as error:
        if stop.asked:
            _complain(STOPPED, INTERRUPTED)
        found = explained(error)
        if found is None:
            raise
        _complain(*found)


def explained(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of an error with a cause that the user can mend; None for others."""
    from bench.system.failures import explain_failure

    failure = explain_failure(error)
    if failure is not None:
        return failure, 1
    if type(error).__name__ == "ValidationError":
        return f"A value cannot be used: {explain(cast('ValidationError', error))}.", 2
    of_plugin = sys.modules.get("bench.plugins.load")
    found: str | None = of_plugin.blame(error) if of_plugin else None
    return _usage_error(error) if found is None else (found, 1)


def _usage_error(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of a command-line parser's error; None for any other exception.

    Recognised by attributes and not by class: newer versions of typer carry their own copy of
    click, older ones use the package.
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
        # Newer versions have printed the help already; in older ones it is the message.
        return message or "Name a command.", int(parsed.exit_code)
    if context is None:
        return message, int(parsed.exit_code)
    if kind in ("NoSuchOption", "NoSuchOptionError"):
        options = sorted(o for p in context.command.params for o in p.opts if o.startswith("--"))
        advice = _setting(message, options) or f"Available: {', '.join(options)}."
    elif "No such command" in message:
        advice = f"Available: {', '.join(sorted(context.command.commands))}."
    else:
        advice = f"See: {context.command_path} --help"
    stop = "" if message.endswith((".", "?", "!")) else "."
    return " ".join(f"{message}{stop} {advice}".split()), int(parsed.exit_code)


def _setting(message: str, options: Sequence[str]) -> str:
    """What to type instead of a setting that was given as an option, such as --lr; or ''."""
    from methods.settings import TrainSettings

    found = re.search(r"--([\w-]+)", message)
    name = found[1].replace("-", "_") if found else ""
    if "--set" not in options or name not in TrainSettings.model_fields:
        return ""
    return f"It is a setting: --set train.{name}=VALUE."


def _complain(message: str, code: int) -> None:
    with suppress(OSError):
        prefix = "" if code == INTERRUPTED else "Error: "
        # One write that includes the newline: several processes may print at once.
        print(f"{prefix}{message}\n", end="", file=sys.stderr, flush=True)
    _hush()
    sys.exit(code)


def _hush() -> None:
    """Discard output that a closed pipe or full disk refuses; the interpreter would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
