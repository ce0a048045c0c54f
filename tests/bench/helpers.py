"""Test helpers: the command line run in this process, and tiny runs."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench.cli import app as cli
from bench.data.find import find_dataset
from bench.experiment.rows import read_rows
from bench.report import build
from bench.training.card import make_card, parse_overrides

TINY = ("train.iterations=12", "train.batch=8", "net.width=8", "net.blocks=1")
TINY_IMAGES = ("train.iterations=2", "train.batch=4", "net.channels=8", "net.channel_mult=[1,1]")

# Only quick metrics: neighbours of 4,000 real samples take one second per cell.
TOY_METRICS = ("--metric", "w1", "--metric", "shift", "--metric", "within3", "--metric", "fd")


@dataclass(frozen=True)
class Ran:
    """The exit status and output of a command."""

    code: int
    out: str
    err: str

    def __post_init__(self):
        assert "Traceback" not in self.err


def bench(*arguments) -> Ran:
    """Run `bench` with these arguments in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["bench", *(str(a) for a in arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict("os.environ", {"COLUMNS": "250"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
    return Ran(code, out.getvalue(), err.getvalue())


def empty_figure(plan, kinds: Sequence[str]) -> dict[str, bytes]:
    """Files of a figure that is not drawn; replaces `bench.report.build.draw`."""
    return dict.fromkeys(kinds, b"drawn")


FIGURES = [
    pytest.param(empty_figure, id="empty"),
    pytest.param(build.draw, id="drawn", marks=pytest.mark.long),
]
"""Values of `bench.report.build.draw`."""


def sets(*pairs: str) -> list[str]:
    """`--set` options."""
    return [part for pair in pairs for part in ("--set", pair)]


def tiny_card(method: str, data: str = "modes1d", *pairs: str, **more):
    """The card of a tiny run."""
    small = TINY_IMAGES if data == "digits" else TINY
    overrides = parse_overrides((*small, *pairs))
    return make_card(method, data=find_dataset(data), overrides=overrides, **more)


def untimed(out: str) -> str:
    """The output of a command without the time that each bar took."""
    return re.sub(r"(\d+/\d+) in [\d.]+ (s|min|h)\.", r"\1", out)


def contents(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(results: Path, method: str, experiment: str = "default") -> list:
    """The rows of a method, sorted by guidance and steps."""
    rows = [r for r in read_rows(results / experiment / "cells") if r.method == method]
    return sorted(rows, key=lambda r: (r.guidance, r.steps))


def randomised(method):
    """Networks of a method with seeded random weights, also in the output layers."""
    nets = method.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in nets.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return nets.eval().requires_grad_(False)
