"""What a progress bar shows at its end."""

import io
import re

import pytest
from rich.console import Console

from bench.system import progress
from bench.system.progress import Bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shown(console, clock, *, stops=False):
    """The output of a bar that has all its samples before its work is done."""
    try:
        with Bar("cells", 10, 0, console) as bar:
            clock[0] += 20.0
            bar.update(10, "g=4", share=0.8)
            clock[0] += 5.0
            if stops:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return console.file.getvalue()


def test_line_of_a_finished_bar_gives_the_time_it_took(clock):
    lines = shown(Console(file=io.StringIO()), clock).splitlines()
    assert lines == ["cells: 10/10, 5 s left. g=4", "cells: 10/10 in 25 s. g=4"]


def test_stopped_bar_does_not_claim_to_be_finished(clock):
    out = shown(Console(file=io.StringIO()), clock, stops=True)
    assert out == "cells: 10/10, 5 s left. g=4\n"


def test_bar_with_nothing_to_do_prints_nothing():
    console = Console(file=io.StringIO())
    with Bar("cells", 10, 10, console):
        pass
    assert console.file.getvalue() == ""


def test_finished_bar_of_a_terminal_has_no_time_left(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    left = re.findall(r"(\S+ s) left", shown(console, clock))
    assert left[-1] == "0 s"
