"""Workers: the bytes of one process, and what happens when one of them fails or is killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Timer
from typing import Any

import pytest

from bench.system import workers
from bench.system.errors import UserError
from bench.system.launch import Call, Launcher, Worker, local
from bench.system.launch.base import CODE
from bench.system.progress import Reporter
from bench.system.workers import WORKER, End, current_crew, with_workers
from bench.tuning.store import result_path
from tests.bench.helpers import TINY, TOY_METRICS, Ran, bench, rows_of, sets
from tests.long import mostly_long
from tests.processes import Forked, run_bench
from tests.torture.check import content, leftovers

SLOW = """
    import os, time
    from pathlib import Path
    from methods import Preset, register
    from methods.oracle import Oracle

    LOG = Path({log!r})

    @register
    class Slow(Oracle):
        "The oracle, slowly."
        name = "slow"
        summary = "waits"

        def sample(self, nets, labels, guidance, steps, rng):
            with LOG.open("a") as log:
                log.write(f"{{os.getpid()}} {{guidance.scale:g}}\\n")
            time.sleep({pause})
            {then}
            return super().sample(nets, labels, guidance, steps, rng)
"""
SCALES = 24


def _sweep(folder: Path, then: str = "pass", pause: float = 0.5) -> list[str]:
    """The arguments of a sweep of a slow method by two processes."""
    plugin = folder / "slow.py"
    text = SLOW.format(log=str(folder / "log"), pause=pause, then=then)
    plugin.write_text(textwrap.dedent(text))
    return [
        "sweep", "-m", "slow", "-d", "modes1d", "-g", f"1..{SCALES}", "-n", "16", "--plugin",
        str(plugin), *TOY_METRICS, "--workers", "2", "--results", str(folder / "results"),
    ]  # fmt: skip


def _log(folder: Path) -> list[tuple[str, float]]:
    """Process and scale of each sampling, in their order."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [(pid, float(scale)) for pid, scale in lines]


def _rows(folder: Path) -> dict[float, str]:
    return {row.guidance: row.status for row in rows_of(folder / "results", "slow")}


@pytest.mark.long
def test_two_workers_make_each_cell_once(tmp_path: Path) -> None:
    ran = bench(*_sweep(tmp_path))
    assert (ran.code, ran.err) == (0, "")
    assert f"{SCALES} cells computed, 0 kept, 0 skipped with a reason, 0 failed" in ran.out
    assert "waiting for" not in ran.out
    assert sorted(scale for _, scale in _log(tmp_path)) == list(range(1, SCALES + 1))
    assert len({pid for pid, _ in _log(tmp_path)}) == 2
    assert set(_rows(tmp_path).values()) == {"ok"}
    assert not leftovers(tmp_path / "results")


@pytest.mark.long
def test_failure_in_a_worker_is_stored_and_reported_once(tmp_path: Path) -> None:
    fails = f'assert guidance.scale != 20 and "{WORKER}" in os.environ or guidance.scale < 20, "no"'
    ran = bench(*_sweep(tmp_path, fails, pause=0.3))
    assert ran.code == 1
    failed = [line for line in ran.out.splitlines() if line.startswith("Failed: ")]
    assert len(failed) == len(set(failed)) == list(_rows(tmp_path).values()).count("failed")
    assert any("g=20" in line and "AssertionError: no" in line for line in failed)


@pytest.mark.long
def test_failing_cell_is_tried_once(tmp_path: Path) -> None:
    arguments = _sweep(tmp_path, 'assert guidance.scale not in (3, 9), "no"', pause=0.2)
    ran = bench(*arguments, "--workers", "3")
    assert (ran.code, ran.err.count("has stopped")) == (1, 0), ran.err
    assert sorted(scale for _, scale in _log(tmp_path)) == list(range(1, SCALES + 1))
    assert {g for g, status in _rows(tmp_path).items() if status == "failed"} == {3, 9}


ENDS = ["os._exit(7)", "os.kill(os.getpid(), 9)", "1 / 0"]


@pytest.mark.parametrize("end", mostly_long(ENDS, []))
def test_command_continues_without_a_worker_that_ends(tmp_path: Path, end: str) -> None:
    if end == "1 / 0":  # while the worker starts
        arguments = _sweep(tmp_path)
        with (tmp_path / "slow.py").open("a") as file:
            file.write(f'\nif "{WORKER}" in os.environ:\n    os._exit(3)\n')
    else:
        arguments = _sweep(tmp_path, f'if "{WORKER}" in os.environ: {end}')
    ran = bench(*arguments)
    assert ran.code == 0
    assert "Warning: Worker 1 has stopped, the others continue" in ran.err
    assert _rows(tmp_path) == dict.fromkeys(range(1, SCALES + 1), "ok")
    assert not leftovers(tmp_path / "results")


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize("number", mostly_long(SIGNALS, []))
def test_workers_stop_with_their_command(tmp_path: Path, number: signal.Signals) -> None:
    arguments = _sweep(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # off in background jobs
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "log").exists() or len({pid for pid, _ in _log(tmp_path)}) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    pids = {int(pid) for pid, _ in _log(tmp_path)}
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert err == "Stopped. Finished work is kept. Run the same command to continue.\n"
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert not leftovers(tmp_path / "results")
    kept = _rows(tmp_path)
    assert len(kept) < SCALES
    assert bench(*arguments).code == 0
    assert _rows(tmp_path) == dict.fromkeys(range(1, SCALES + 1), "ok")


def _everything(results: Path, workers: int) -> list[Ran]:
    """Training, a sweep and a tuning of three methods."""
    common = ("--workers", workers, "--results", results)
    methods = ("-m", "igct", "-m", "edm", "-m", "ct")
    small = (*sets(*TINY), *sets("train.iterations=150"))
    return [
        bench("train", *methods, "-d", "modes1d", *small, *common),
        bench("sweep", "-g", "1..6", "-n", "64", *TOY_METRICS, "--save-samples", "npz", *common),
        bench(
            "tune", "-m", "edm", "--rule", "apg", "--budget", 10, "-n", 64, "-g", "4",
            "--metric", "w1", *common,
        ),
    ]  # fmt: skip


def _found(results: Path) -> dict[str, Any]:
    """What a tuning found, without its times."""
    path = result_path(results / "default" / "tuned", "modes1d-edm-s0", "apg")
    found: dict[str, Any] = json.loads(path.read_text())
    for entry in (found, *found["trials"]):
        for key in ("created", "seconds", "content_sha256", "provenance"):
            entry.pop(key, None)
    return found


def test_two_workers_end_with_the_bytes_of_one(tmp_path: Path) -> None:
    one, two = _everything(tmp_path / "one", 1), _everything(tmp_path / "two", 2)
    assert [ran.code for ran in (*one, *two)] == [0] * 6
    assert [ran.err for ran in two] == [""] * 3
    contents = [content(tmp_path / name) for name in ("one", "two")]
    tuned = [{k: c.pop(k) for k in list(c) if "/tuned/" in k} for c in contents]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 50
    assert tuned[0].keys() == tuned[1].keys()
    assert _found(tmp_path / "one") == _found(tmp_path / "two")
    said = [
        # Workers try the items in another order, so that another one is the last in the bar.
        re.sub(r"(\d+/\d+ in ).*", r"\1", ran.out.replace(str(tmp_path / name), "results"))
        for name, ran in (("one", one[1]), ("two", two[1]))
    ]
    assert said[0] == said[1]


class _Told(Worker):
    """A worker that says what it is told to, and then ends."""

    def __init__(self) -> None:
        super().__init__(1)
        self.news: Queue[str | None] = Queue()

    def tell(self, **news: str) -> None:
        self.news.put(json.dumps(news))

    def lines(self) -> Iterator[str]:
        yield from iter(self.news.get, None)

    def stop(self) -> None:
        self.news.put(None)

    def kill(self) -> None:
        self.news.put(None)

    def wait(self, seconds: float) -> int | None:
        return 1

    def last_words(self) -> str:
        return "why"

    def close(self) -> None:
        pass


class _Tells(Launcher):
    """Starts one worker that says what it is told to."""

    name = "tells"
    summary = "for tests"

    def start(self, call: Call, numbers: Sequence[int]) -> list[Worker]:
        self.worker = _Told()
        return [self.worker]


def test_command_waits_for_the_report_of_a_result_that_it_finds(tmp_path: Path) -> None:
    launcher, row, other = _Tells({}), str(tmp_path / "row"), str(tmp_path / "other")
    with with_workers(launcher, Call([], tmp_path), 1, Reporter()):
        crew, worker = current_crew(), launcher.worker
        assert crew.found(Path(row), wait=True) is None  # nobody has begun it
        worker.tell(path=row)
        worker.tell(path=other)
        _until(lambda: Path(other) in crew._begun)
        assert crew.found(Path(row)) is None
        Timer(0.3, lambda: worker.tell(path=row, end="diverged", reason="")).start()
        assert crew.found(Path(row), wait=True) == End("diverged")
        Timer(0.3, worker.kill).start()
        assert crew.found(Path(other), wait=True) is None  # its worker has died


def test_command_that_does_not_compute_ends_when_all_workers_have_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LAG", 0.2)
    launcher = _Tells({})
    with with_workers(launcher, Call([], tmp_path), 1, Reporter()):
        assert not current_crew().computes()
        launcher.worker.kill()
        with pytest.raises(UserError, match="All workers have stopped: why"):
            _until(current_crew().computes)


def test_worker_of_other_code_refuses_to_work() -> None:
    other = {WORKER: "1", CODE: "of another version"}
    process = Forked(run_bench, "sweep", "-d", "modes1d", env=other)
    _, err = process.communicate()
    assert process.returncode == 1
    assert f"Error: The code on {socket.gethostname()} is not that of the command" in err


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("visible", "number", "device"),
    [("", 1, "1"), ("", 3, "3"), ("4,6", 1, "6"), ("GPU-a,GPU-b", 2, "GPU-a")],
)
def test_each_worker_gets_its_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str, number: int, device: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = len(visible.split(",")) if visible else 4
    assert local._one_gpu(number, gpus) == {"CUDA_VISIBLE_DEVICES": device}
    assert local._one_gpu(number, 1) == {}


def test_torchrun_and_workers_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = bench(*_sweep(tmp_path))
    assert (ran.code, ran.err) == (
        2,
        "Error: torchrun starts the processes: drop --workers and --launcher.\n",
    )
    assert os.environ["GUIDANCE_BENCH_WORKERS"] == "1"
