from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bench.system import forks
from bench.system.forks import in_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="computes in one process")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(forks.os, "sched_getaffinity", lambda _: {0, 1})


def test_every_item_has_its_result():
    with in_processes(lambda item: (item * item, os.getpid()), range(20)) as results:
        found = dict(results)
    assert {item: square for item, (square, _) in found.items()} == {i: i * i for i in range(20)}
    processes = {process for _, process in found.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.parametrize("items", [[], [3]])
def test_one_item_is_computed_in_this_process(items):
    with in_processes(lambda item: os.getpid(), items) as results:
        assert list(results) == [(item, os.getpid()) for item in items]


def test_killed_process_loses_only_its_item():
    def work(item):
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with in_processes(work, range(8)) as results:
        assert dict(results) == {i: None if i == 2 else i for i in range(8)}


def test_items_left_by_killed_processes_are_computed_here():
    here = os.getpid()

    def work(item):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with in_processes(work, range(4)) as results:
        assert dict(results) == {0: None, 1: None, 2: 2, 3: 3}


LONG = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
from bench.system import forks
forks.os.sched_getaffinity = lambda _: {0, 1}
def work(item):
    time.sleep(0.3)
    return os.getpid()
with forks.in_processes(work, range(1000)) as results:
    for _, process in results:
        print(process, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_command(number):
    command = subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes = {int(command.stdout.readline()) for _ in range(2)}
    command.send_signal(number)
    command.wait(20)
    _, errors = command.communicate()
    assert errors.count("Traceback") == (number == signal.SIGINT)
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{p}") for p in processes):  # noqa: PTH110
        assert time.monotonic() < deadline
        time.sleep(0.05)
