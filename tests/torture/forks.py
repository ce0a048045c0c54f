"""Commands in separate processes, forked from one that has done the imports."""

import gc
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.torture.shim import Shadow, Shim

ROOT = Path(__file__).parents[2]
LONGEST = 120.0
"""Seconds after which a command counts as hung."""


@dataclass(frozen=True)
class Kill:
    """A signal after some seconds, or at an event of the shim if `at` is not 0."""

    number: int = 0
    after: float = 0.0
    at: int = 0
    cold: bool = False
    """Start a new interpreter, which has to do the imports and has no shim."""


@dataclass(frozen=True)
class Ended:
    """The exit status (negative: ended by that signal) and the whole output of a command."""

    code: int
    text: str
    seconds: float


def run(arguments: tuple[str, ...], tree: Path, kill: Kill, *, shadow: Shadow | None = None,
        log: Path | None = None, states: Path | None = None) -> Ended:  # fmt: skip
    """Run `bench` with these arguments in the folder `tree`, killed according to `kill`."""
    output = tree.with_name(f"{tree.name}.output")
    output.write_bytes(b"")
    started = time.monotonic()
    # The wait relies on SIGCHLD, which must not be lost between the fork and the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        try:
            _child(arguments, tree, kill, output, shadow, log, states)
        finally:  # after a late signal, the child must not continue as its parent
            os._exit(71)
    deadline = started + (kill.after if kill.number and not kill.at else LONGEST)
    status = _wait(child, deadline)
    if status is None:
        os.kill(child, kill.number if kill.number and not kill.at else signal.SIGKILL)
        status = _wait(child, time.monotonic() + LONGEST)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"bench {' '.join(arguments)} did not end")
    code = os.waitstatus_to_exitcode(status)
    _wait_for_workers(tree)
    return Ended(code, output.read_text(errors="replace"), time.monotonic() - started)


def _wait(child: int, deadline: float) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _wait_for_workers(tree: Path) -> None:
    """Wait for the workers of a command, which stop when it is gone."""
    deadline = time.monotonic() + LONGEST
    while working := [p for p in Path("/proc").glob("[0-9]*/cwd") if _leads_to(p, tree)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"workers continue without their command: {working}")
        time.sleep(0.02)


def _leads_to(link: Path, tree: Path) -> bool:
    try:
        return os.readlink(link) == str(tree)
    except OSError:
        return False


def _child(arguments, tree, kill, output, shadow, log, states) -> None:
    """Run the command in the child; never returns."""
    code = 70
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(tree)
        os.environ["GUIDANCE_BENCH_DATA"] = "data"
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if states is not None:
            _keep_states(states)
        if kill.cold:
            path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
            command = [sys.executable, "-m", "bench.cli", *arguments]
            os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path})
        Shim(tree, shadow, log, kill.at, kill.number).install()
        sys.argv = ["bench", *arguments]
        from bench.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
        if code == 130:
            gc.collect()  # as an interpreter does at exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _keep_states(folder: Path) -> None:
    """Also save each checkpoint under its step, for comparison with those of killed runs."""
    import bench.training.checkpoint

    save = bench.training.checkpoint.save_state

    def keep(path, state, before=lambda: None):
        save(path, state, before)
        folder.mkdir(exist_ok=True)
        save(folder / f"{state.step}.safetensors", state)

    bench.training.checkpoint.save_state = keep
