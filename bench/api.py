"""The commands as Python functions, and the rows of an experiment as a table.

`train`, `sweep` and `report` take the options of the commands and run them. Types are those of the
options; at run time numbers are accepted for texts, sequences for ranges such as "1,2,4", and
mappings for repeated key=value options. A mistake raises `UserError` with the command's message.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

from bench.cli import one_thread
from bench.cli.report import report_command
from bench.cli.sweep import sweep_command
from bench.cli.train import train_command
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS, Experiment
from bench.system.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from torch import Tensor

    from bench.evaluation.result import Report
    from bench.evaluation.sides import SampleSource
    from bench.experiment.rows import Row

    Samples = str | Path | npt.NDArray[Any] | Tensor
    Classes = Sequence[int] | npt.NDArray[np.int64] | Tensor

_RUNNING: list[bool] = []
"""Whether a function of this module is running."""
P = ParamSpec("P")
R = TypeVar("R")

EMBEDDED, NO_RULE, UNKNOWN = "embedded", "none", "unknown"
COLUMNS = {
    "row": "position in `rows` of the row that the value is from",
    "experiment": "name of the experiment",
    "dataset": "name of the data set",
    "method": "name of the method; 'real' for real samples measured like generated ones",
    "rule": f"guidance rule: 'cfg' or another; '{EMBEDDED}' if the network takes the scale as an "
    f"input, '{NO_RULE}' without guidance, '{UNKNOWN}' if the method's plugin is not loaded",
    "knobs_from": "origin of the rule's knobs: 'default', 'suite', 'tuned', or ''",
    "run": "name of the training run",
    "train_seed": "seed of the training",
    "guidance": "scale g; 1 is off",
    "steps": "sampling steps",
    "nfe": "network evaluations per sample",
    "nfe_weighted": "the same, weighted by the parameters of the network evaluated",
    "seed": "sampling seed",
    "seconds_per_image": "seconds of sampling per image",
    "metric": "name of the metric, as in `bench list metrics`; missing if the row has no values",
    "label": "its name in tables",
    "direction": "the better direction: 'lower', 'higher' or 'none'",
    "extractor": "features that it uses; '' if none",
    "n": "generated samples",
    "reference": "real samples compared with",
    "reference_n": "their number",
    "value": "the value",
    "se": "its standard error, if known",
    "se_method": "how the error was estimated; '' if unknown",
    "low": "lower end of the 95% interval",
    "high": "upper end of it",
    "status": "'ok', 'skip', 'diverged' or 'failed'",
    "reason": "why there is no value; '' for 'ok'",
}
"""The columns of the table of `load`."""


class Loaded(NamedTuple):
    """An experiment in memory: a table with one line per value (`COLUMNS`), and its rows."""

    frame: pd.DataFrame
    rows: tuple[Row, ...]


def load(
    experiment: str | Experiment = DEFAULT_EXPERIMENT,
    results: Path | str = DEFAULT_RESULTS,
    *,
    plugins: Sequence[Path | str] = (),
    everything: bool = False,
) -> Loaded:
    """Read the rows that a report would show, by default those of the newest weights and code.

    `everything` adds older rows and those of `bench tune`. Without guidance (g = 1) most rules do
    not act: such rows have the rule 'cfg' and belong to the lines of all rules. `plugins` are files
    with methods. Raises UserError if there are no rows, or rows that are not comparable.
    """
    one_thread()
    from bench.cli.options import warn_of_plugins
    from bench.experiment.rows import read_rows
    from bench.experiment.suite import TUNING_SEEDS
    from bench.report.numbers.frame import prepare
    from bench.report.numbers.summary import summary
    from bench.system.progress import Reporter

    found = (
        experiment
        if isinstance(experiment, Experiment)
        else Experiment(Path(results), str(experiment))
    )
    warn_of_plugins(Reporter(), [Path(plugin) for plugin in plugins])
    rows = read_rows(found.cells)
    if not rows:
        raise UserError(
            f"There are no rows in {found.cells}: run bench sweep --experiment {found.name} first.",
            code=2,
        )
    if not everything:
        rows = list(prepare([row for row in rows if row.seed < TUNING_SEEDS]).rows)
    frame = summary(rows)
    kinds = {method: _without_rule(method) for method in frame["method"].unique()}
    frame["rule"] = frame["rule"].where(frame["rule"] != "", frame["method"].map(kinds))
    return Loaded(frame[list(COLUMNS)], tuple(rows))


def _without_rule(method: str) -> str:
    """What the column `rule` has for rows of a method that name no rule."""
    from bench.report.numbers.names import FLOOR
    from methods import METHODS
    from methods.rules import CFG

    if method == FLOOR:
        return NO_RULE
    if method not in METHODS:
        return UNKNOWN
    return {"sampling": CFG.name, "embedded": EMBEDDED}.get(METHODS[method].guidance, NO_RULE)


def evaluate(
    samples: Samples,
    reference: Samples,
    metrics: Sequence[str] = (),
    *,
    extractors: Sequence[str] = (),
    protocol: str | None = None,
    labels: Classes | None = None,
    reference_labels: Classes | None = None,
    weights: Path | str | None = None,
    download: bool = False,
    device: str = "auto",
    results: Path | str = DEFAULT_RESULTS,
    plugins: Sequence[Path | str] = (),
) -> Report:
    """Measure samples against a reference, as `bench evaluate` does.

    Both are a folder, archive or data set by name, or an array or tensor: images uint8 (n, H, W),
    (n, H, W, C) or (n, C, H, W), C is 1 or 3, or vectors float (n, D). `labels` and
    `reference_labels` (n,) are the classes of arrays. Metrics and extractors are by default those
    of the reference's data set, otherwise those of the protocol 'offline'. Features of the
    reference are cached below `results`. The values are in `rows` and `frame` of the result.
    """
    one_thread()
    from bench.cli.options import begin, chosen_protocol
    from bench.evaluation.evaluate import evaluate as measured
    from bench.evaluation.evaluate import make_request
    from bench.evaluation.makers import Makers
    from bench.system.devices import resolve_device

    with _as_command():
        reporter, found = begin([Path(p) for p in plugins], Path(results), download=download)
        request = make_request(
            _side("samples", samples, labels), _side("reference", reference, reference_labels),
            chosen_protocol(protocol, list(metrics), list(extractors)), extractors, metrics,
        )  # fmt: skip
        folder = None if weights is None else Path(weights)
        makers = Makers(found.cache, folder, download, resolve_device(device), reporter.say)
        return measured(reporter, found.cache, request, makers)[0]


def _side(name: str, given: Samples, labels: Classes | None) -> str | SampleSource:
    from bench.evaluation.sides import array_source

    if not isinstance(given, str | Path):
        return array_source(name, given, labels)
    if labels is not None:
        raise UserError(f"Labels are for arrays, and the {name} are {str(given)!r}.", code=2)
    return str(given)


@contextmanager
def _as_command(words: Sequence[str] = ()) -> Iterator[None]:
    """Run the block as the command line with these words: workers read them, and errors are alike.

    Raises UserError for what the command would print as an error, with the original as its cause.
    """
    from bench.cli.app import explained
    from bench.cli.options import UNTIL_THE_END
    from bench.system.signals import StopFlag, signals_as_interrupts
    from bench.system.workers import is_worker

    if _RUNNING or is_worker():
        raise UserError(
            "A function of bench is called while a command imports this file: put the call below "
            "if __name__ == '__main__':"
        )
    _RUNNING.append(True)
    before, sys.argv = sys.argv, ["bench", *words] if words else sys.argv
    stop = StopFlag()
    try:
        with signals_as_interrupts() as stop, UNTIL_THE_END:
            yield
    except UserError:
        raise
    except Exception as error:
        if stop.asked:
            raise KeyboardInterrupt from error
        found = explained(error)
        if found is None:
            raise
        raise UserError(*found) from error
    finally:
        _RUNNING.clear()
        sys.argv = before


def _function(name: str, command: Callable[P, R]) -> Callable[P, R]:
    """A command as a function with its signature, and with its options as the docstring."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        one_thread()
        from bench.cli.app import INTERRUPTED, parser

        given = inspect.signature(command).bind(*args, **kwargs).arguments
        words = [name, *_words(_parameters(name), given)]
        with _as_command(words):
            result = parser().main(words, "bench", standalone_mode=False)
            if result == INTERRUPTED:  # newer versions of typer return this on Ctrl-C
                raise KeyboardInterrupt
            return cast(R, result)

    call.__name__ = call.__qualname__ = name
    call.__module__ = __name__
    call.__signature__ = _signature(command)  # type: ignore[attr-defined]
    call.__doc__ = f"{inspect.getdoc(command)}\n\nThe options are those of `bench {name}`."
    return call


def _signature(command: Callable[..., object]) -> inspect.Signature:
    """The signature without typer's annotations, which are long."""
    found = inspect.signature(command)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return found.replace(parameters=plain)


def _parameters(name: str) -> Sequence[Any]:
    """The options of a command: objects of click, of which typer may carry its own copy."""
    from bench.cli.app import parser

    return parser().commands[name].params  # type: ignore[no-any-return]


def _words(parameters: Sequence[Any], given: Mapping[str, object]) -> Iterator[str]:
    """The words of a command line for options by their names in Python; None is the default."""
    for option in parameters:
        value = given.get(option.name)
        if value is None:
            continue
        flag = max(option.opts, key=len)
        if option.is_flag:
            if value != option.default:
                yield flag if value else max(option.secondary_opts, key=len)
        elif option.multiple:
            for one in _several(value):
                yield from (flag, one)
        else:
            yield from (flag, _text(value))


def _several(value: object) -> Iterable[str]:
    """The values of a repeatable option."""
    if isinstance(value, Mapping):
        return (f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in value.items())
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (_text(value),)
    return map(_text, value)


def _text(value: object) -> str:
    """A value as on the command line; numbers in a row as a range such as "1,2,4"."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


train = _function("train", train_command)
sweep = _function("sweep", sweep_command)
report = _function("report", report_command)
