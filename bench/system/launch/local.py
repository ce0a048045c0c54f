"""Workers on this machine: child processes, each with one of its GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress

from bench.system.errors import visible
from bench.system.launch.base import Call, Launcher, Worker, register


@register
class Local(Launcher):
    """Child processes; the command computes beside them, and they stop when it is gone."""

    name = "local"
    summary = "processes on this machine, one per GPU or per physical core"
    computes_here = True

    def start(self, call: Call, numbers: Sequence[int]) -> list[Worker]:
        """Start the processes."""
        return [Child(call, number) for number in numbers]


class Child(Worker):
    """A child process. Its standard input ends when this process does."""

    def __init__(self, call: Call, number: int) -> None:
        super().__init__(number)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", call.source(), *call.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **call.environment(number), **_one_gpu(number, call.gpus)},
            start_new_session=True,  # Ctrl-C reaches only the command, which then asks the workers
        )

    def lines(self) -> Iterator[str]:
        """The lines of its standard output."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.decode(errors="replace")

    def stop(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, seconds: float) -> int | None:
        """Its exit status."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def last_words(self) -> str:
        """The last line of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return visible(lines[-1]) if lines else ""

    def close(self) -> None:
        """Close its streams."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._errors.close()


def _one_gpu(number: int, gpus: int) -> dict[str, str]:
    """The variable that leaves a worker one of several GPUs; the command itself has the first."""
    if gpus < 2:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible_ones = named.split(",") if named else [str(i) for i in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": visible_ones[number % len(visible_ones)]}
