"""Functions and `bench` commands in separate processes, forked from one that has the imports.

A new interpreter takes four CPU seconds until a command starts. The long tests start some.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300.0
"""Seconds after which a process counts as hung."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}
"""Keeps the traffic between processes of torchrun on this machine."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preload"])


class Forked:
    """A call in a separate process, with the methods of `subprocess.Popen` that tests use.

    `cwd` is its folder, by default the repository; `env` is added to its environment.
    """

    def __init__(
        self,
        call: Callable[..., None],
        *arguments: object,
        cwd: Path = ROOT,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._output = tempfile.TemporaryDirectory()
        self._process = _FORKS.Process(
            target=_call,
            args=(call, arguments, Path(self._output.name), cwd, {**os.environ, **env}),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """The exit status; negative after a signal, None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; return the output and the errors."""
        self._process.join(LONGEST)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"process {self.pid} did not end")
        out, err = ((Path(self._output.name) / name).read_text() for name in ("out", "err"))
        self._output.cleanup()
        return out, err


def start(*arguments: object) -> Forked:
    """Start `bench` with these arguments."""
    return Forked(run_bench, *map(str, arguments))


def group(call: Callable[..., None], *arguments: object, processes: int = 2) -> list[Forked]:
    """Start the same call in several processes that work together, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), **LOOPBACK,
    }  # fmt: skip
    return [
        Forked(call, *arguments, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]


def start_slow_training(*arguments: object) -> Forked:
    """Start `bench` with a pause in every training step, so that a signal finds it training."""
    return Forked(_train_slowly, *map(str, arguments))


def _train_slowly(*arguments: str) -> None:
    from bench.training import loop

    quick = loop.learning_rate

    def rate(settings, step):
        time.sleep(0.05)
        return quick(settings, step)

    loop.learning_rate = rate
    run_bench(*arguments)


def new_interpreter(*arguments: object) -> subprocess.Popen[str]:
    """Start `bench` in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


Start = Callable[..., Forked | subprocess.Popen[str]]
STARTS = pytest.mark.parametrize(
    "starts",
    [
        pytest.param(start, id="forked"),
        pytest.param(new_interpreter, id="new", marks=pytest.mark.long),
    ],
)
"""Run a test with forked commands, and in the long form with new interpreters."""


def torchrun(*call: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a program or "-m" and a module in several processes, in new interpreters."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc-per-node", str(processes), *map(str, call)],
        capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **LOOPBACK},
    )  # fmt: skip


def train_together(arguments: Sequence[object], processes: int, launched: bool) -> str:
    """Run `bench` in processes that train together, forked or launched by torchrun."""
    if launched:
        done = torchrun("-m", "bench.cli", *arguments, processes=processes)
        assert done.returncode == 0, done.stderr
        return done.stdout
    crew = group(run_bench, *map(str, arguments), processes=processes)
    outputs = [process.communicate() for process in crew]
    assert [process.returncode for process in crew] == [0] * processes, outputs
    return "".join(out for out, _ in outputs)


def run_bench(*arguments: str) -> None:
    """Run `bench` in this process, which ends with it."""
    sys.argv = ["bench", *arguments]
    from bench.cli.app import main

    main()


def _call(call, arguments, output, cwd, env) -> None:
    """Run the call in the child, with its output in files."""
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    call(*arguments)
