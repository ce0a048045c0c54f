"""Sweeps and trainings on a real Slurm, on nodes that are killed and commands that are."""

import json
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.plugins.launcher_conformance import LauncherConformance
from bench.system.files import WRITING
from bench.system.launch import Slurm
from tests.bench.helpers import TOY_METRICS, bench
from tests.cluster.conftest import Cluster, slurm
from tests.torture.check import content, differing

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster", "no_jobs")]

SLOW = """
    import os, time
    from pathlib import Path
    from methods import register
    from methods.oracle import Oracle

    @register
    class Slow(Oracle):
        "The oracle, slowly."
        name = "slow"
        summary = "waits"

        def sample(self, nets, labels, guidance, steps, rng):
            log = os.environ.get("SLOW_LOG")
            if log:
                with Path(log).open("a") as file:
                    file.write(f"{os.getpid()} {guidance.scale:g}\\n")
                time.sleep(1)
            return super().sample(nets, labels, guidance, steps, rng)
"""
SCALES = 16


class TestSlurmLauncher(LauncherConformance):
    launcher = Slurm
    settings = {"time": "5", "partition": "main"}  # noqa: RUF012


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a sweep of one second per cell."""
    plugin = tmp_path / "slow.py"
    plugin.write_text(textwrap.dedent(SLOW))
    arguments = ["sweep", "-m", "slow", "-d", "modes1d", "-g", f"1..{SCALES}", "-n", "16"]
    arguments += ["--plugin", str(plugin), *TOY_METRICS]
    assert bench(*arguments, "--results", tmp_path / "serial").code == 0
    monkeypatch.setenv("SLOW_LOG", str(tmp_path / "log"))
    arguments += ["--results", str(tmp_path / "results"), "--launcher", "slurm"]
    return [*arguments, "--slurm", "time=10", "--workers", "2"]


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _sampled(folder: Path) -> list[tuple[str, float]]:
    """Process and scale of each sampling."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(pid, float(scale)) for pid, scale in map(str.split, lines)]


def _until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def _both_work(folder: Path) -> bool:
    return len({pid for pid, _ in _sampled(folder)}) == 2 and len(_sampled(folder)) >= 4


def _check_rows(folder: Path, *, twice: int) -> None:
    """Rows equal those of one process; at most so many cells were sampled twice, none thrice."""
    rows = "default/cells"
    found = differing(content(folder / "serial" / rows), content(folder / "results" / rows))
    # What a killed worker was writing remains until another process writes to this folder.
    assert not [name for name in found if WRITING not in name]
    counts = Counter(scale for _, scale in _sampled(folder))
    assert counts.keys() == set(range(1, SCALES + 1))
    assert max(counts.values()) <= 2
    assert sum(count > 1 for count in counts.values()) <= twice


def test_killed_node_loses_nothing(cluster: Cluster, slow: list[str], tmp_path: Path) -> None:
    command = _start(slow)
    _until(lambda: _both_work(tmp_path), "two workers")
    pid, _ = _sampled(tmp_path)[-1]
    node = cluster.node_of(pid)
    cluster.kill(node)
    sampled = len(_sampled(tmp_path))
    _until(lambda: len(_sampled(tmp_path)) > sampled + 1, "the other node continues")
    cluster.start(node)
    out, _ = command.communicate(timeout=300)
    assert command.returncode == 0, out
    assert f"{SCALES} cells computed" in out
    _check_rows(tmp_path, twice=1)


def test_killed_command_is_continued_by_the_next(slow: list[str], tmp_path: Path) -> None:
    command = _start(slow)
    _until(lambda: _both_work(tmp_path), "two workers")
    command.send_signal(signal.SIGKILL)
    command.communicate()
    job = slurm("squeue", "--noheader", "--format", "%F").split()[0]
    again = bench(*slow)
    assert again.code == 0, again.err
    assert f"Slurm job {job}: " in again.out  # the workers of the first command, and no others
    assert f"{SCALES} cells computed" in again.out
    _check_rows(tmp_path, twice=0)
    assert len({pid for pid, _ in _sampled(tmp_path)}) == 2
    assert not (tmp_path / "results" / "default" / ".slurm").exists()


def test_worker_comes_back_after_its_time_limit(slow: list[str], tmp_path: Path) -> None:
    command = _start(slow)
    _until(lambda: _both_work(tmp_path), "two workers")
    job = slurm("squeue", "--noheader", "--format", "%F").split()[0]
    slurm("scancel", "--signal=USR1", job)  # as Slurm does before the end of the time
    out, _ = command.communicate(timeout=300)
    assert command.returncode == 0, out
    assert "Warning" not in out
    _check_rows(tmp_path, twice=2)  # the items that the signal has interrupted
    assert len({pid for pid, _ in _sampled(tmp_path)}) > 2


def test_stopped_command_cancels_its_workers(slow: list[str], tmp_path: Path) -> None:
    command = _start(slow)
    _until(lambda: _both_work(tmp_path), "two workers")
    command.send_signal(signal.SIGTERM)
    out, _ = command.communicate(timeout=120)
    assert command.returncode == 130, out
    assert out.endswith("Stopped. Finished work is kept. Run the same command to continue.\n")
    _until(lambda: not slurm("squeue", "--noheader"), "the queue is empty")
    assert bench(*slow).code == 0
    _check_rows(tmp_path, twice=2)


def test_detached_workers_are_watched(slow: list[str], tmp_path: Path) -> None:
    begun = bench(*slow, "--detach")
    assert begun.code == 0, begun.err
    job = re.match(r"Slurm job (\d+) with 2 workers; scancel \1 stops it\.\n", begun.out)
    assert job is not None, begun.out
    where = ("--results", tmp_path / "results")
    assert f"bench status {where[0]} {where[1]}" in begun.out
    _until(lambda: _both_work(tmp_path), "two workers")
    seen = ""

    def both_hold_a_cell() -> bool:  # a worker between two cells holds none
        nonlocal seen
        seen = bench("status", *where).out
        return seen.count("process ") == 2

    _until(both_hold_a_cell, "status of two workers")
    assert re.search(r"sweep modes1d │ \d+ +│ 2 +│ 0 ", seen), seen
    assert f"Slurm job {job[1]}: 2 of 2 workers run." in seen
    watching = _start(slow)
    time.sleep(5)
    watching.send_signal(signal.SIGTERM)
    watching.communicate(timeout=60)
    assert slurm("squeue", "--noheader", "--job", job[1])  # who only watches stops nothing
    watched = bench(*slow)
    assert watched.code == 0, watched.err
    assert f"{SCALES} cells computed" in watched.out
    _check_rows(tmp_path, twice=0)
    assert re.search(rf"sweep modes1d │ {SCALES + 1} +│ 0 +│ 0 +│ 0 ", bench("status", *where).out)


def test_refused_job_is_explained(slow: list[str], tmp_path: Path) -> None:
    ran = bench(*slow, "--slurm", "partition=none")
    assert ran.code == 1
    assert "Error: Slurm did not take the job: " in ran.err
    assert "invalid partition" in ran.err


def test_worker_without_the_data_names_its_host(slow: list[str], tmp_path: Path) -> None:
    with (tmp_path / "slow.py").open("a") as file:
        file.write(
            "\nimport os\nif 'SLURM_JOB_ID' in os.environ:\n"
            "    from bench.data import DATASETS\n    del DATASETS['modes1d']\n"
        )
    ran = bench(*slow)
    assert ran.code == 1
    why = "The data set 'modes1d' is not prepared yet."
    host = socket.gethostname()
    assert f"Worker 1 on {host} has stopped, the others continue: {why}" in ran.err
    assert f"Error: All workers have stopped: {why}" in ran.err


def test_processes_of_two_nodes_train_one_run(tmp_path: Path) -> None:
    small = ["train", "-m", "edm", "-d", "modes1d", "--set", "train.iterations=12"]
    alone = bench(*small, "--results", tmp_path / "alone")
    assert alone.code == 0, alone.err
    ran = bench(
        *small, "--results", tmp_path / "two", "--launcher", "slurm", "--slurm", "time=5",
        "--nodes", "2",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    log = "default/runs/modes1d-edm-s0/log.jsonl"
    steps = [
        [json.loads(line) for line in (tmp_path / name / log).read_text().splitlines()]
        for name in ("alone", "two")
    ]
    assert [s["step"] for s in steps[0]] == [s["step"] for s in steps[1]]
    runs = tmp_path / "two" / "default" / "runs"
    assert [path.name for path in runs.iterdir()] == ["modes1d-edm-s0"]
