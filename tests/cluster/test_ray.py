"""A sweep on a Ray cluster of three nodes without a shared folder; run by `make test-cluster`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from bench.plugins.launcher_conformance import LauncherConformance
from bench.system.launch import Ray
from bench.tuning.store import read_result, result_path
from tests.bench.helpers import TINY, TINY_IMAGES, TOY_METRICS, bench, rows_of, sets
from tests.processes import ROOT
from tests.torture.check import content, leftovers

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

ADDRESS = "127.0.0.2:6479"
SCRIPT = str(Path(__file__).with_name("ray.sh"))
SCALES = 12
SLOW = """
    import os, signal, time
    from pathlib import Path
    from methods import Preset, register
    from methods.oracle import Oracle

    @register
    class Slow(Oracle):
        "The oracle, slowly."
        name = "slow"
        summary = "waits"

        def sample(self, nets, labels, guidance, steps, rng):
            with Path({log!r}).open("a") as log:
                log.write(f"{{os.getpid()}} {{guidance.scale:g}}\\n")
            time.sleep(1.0)
            while len({{line.split()[0] for line in Path({log!r}).open()}}) < {workers}:
                time.sleep(0.1)  # until all have started
            {then}
            return super().sample(nets, labels, guidance, steps, rng)
"""


def script(*arguments: object) -> None:
    command = str(Path(sys.executable).with_name("ray"))
    env = {**os.environ, "RAY": command, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([SCRIPT, *map(str, arguments)], check=True, env=env, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def nodes() -> Iterator[None]:
    """The cluster. The last test kills one of its nodes."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # its sockets need a shorter path than tmp_path
    try:
        script("up", folder)
        yield
    finally:
        ray.shutdown()  # TestRay has connected this process, which would end with its raylet
        script("down", folder)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `bench` with workers of the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments), "--ray", ADDRESS],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def slow(folder: Path, then: str = "pass", workers: int = 1) -> list[object]:
    """The arguments of a sweep that takes a second per cell, once so many workers have begun."""
    plugin = folder / "slow.py"
    plugin.write_text(
        textwrap.dedent(SLOW.format(log=str(folder / "log"), then=then, workers=workers))
    )
    return [
        "sweep", "-m", "slow", "-d", "modes1d", "-g", f"1..{SCALES}", "-n", "16", "--plugin",
        plugin, *TOY_METRICS, "--results",
    ]  # fmt: skip


def sampled(folder: Path) -> list[tuple[str, float]]:
    """Process and scale of each sampling, in their order."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(pid, float(scale)) for pid, scale in map(str.split, lines)]


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def equal_to_one_process(folder: Path, command: list[object]) -> None:
    """Check that the rows are those of a sweep in one process."""
    alone = [*map(str, command), str(folder / "one"), "--workers", "1"]
    subprocess.run([sys.executable, "-m", "bench", *alone], cwd=ROOT, check=True)
    assert content(folder / "one") == content(folder / "ray")
    assert not leftovers(folder / "ray")


class TestRay(LauncherConformance):
    launcher = Ray
    settings: ClassVar = {"address": ADDRESS}


def test_sweep_on_ray_has_the_bytes_of_one_process(tmp_path: Path) -> None:
    one, ray = tmp_path / "one", tmp_path / "ray"
    small = (*sets(*TINY), *sets("train.iterations=50"))
    trained = ("-m", "edm", "-m", "igct", "-d", "modes1d", *small)
    assert bench("train", *trained, "--results", one, "--workers", 1).code == 0
    shutil.copytree(one, ray)
    command = ("sweep", "-g", "1..4", "-n", "64", *TOY_METRICS, "--save-samples", "npz")
    assert bench(*command, "--results", one, "--workers", 1).code == 0
    out, err = (process := start(*command, "--results", ray, "--workers", 3)).communicate()
    assert (process.returncode, err) == (0, "")
    assert "cells computed, 0 kept" in out
    assert content(one) == content(ray)
    assert not leftovers(ray)


def test_inversions_and_matched_cells_on_ray_have_the_bytes_of_one_process(tmp_path: Path) -> None:
    one, ray = tmp_path / "one", tmp_path / "ray"
    trained = ("-m", "igct", "-m", "edm", "-d", "digits", *sets(*TINY_IMAGES))
    assert bench("train", *trained, "--results", one, "--workers", 1).code == 0
    shutil.copytree(one, ray)
    command = (
        "sweep", "-g", "1,2,4", "-n", "40", "--steps", "2", "--metric", "fd", "--matched",
        "--match-nfe", "--inversion", "--inversion-samples", "10",
    )  # fmt: skip
    assert bench(*command, "--results", one, "--workers", 1).code == 0
    out, err = (process := start(*command, "--results", ray, "--workers", 2)).communicate()
    assert (process.returncode, err) == (0, "")
    assert "inversions computed, 0 kept" in out
    assert content(one) == content(ray)
    assert not leftovers(ray)


def test_trials_on_ray_are_those_of_one_process(tmp_path: Path) -> None:
    one, ray = tmp_path / "one", tmp_path / "ray"
    trained = ("-m", "edm", "-d", "modes1d", *sets(*TINY))
    assert bench("train", *trained, "--results", one, "--workers", 1).code == 0
    shutil.copytree(one, ray)
    command = ("tune", "-m", "edm", "--rule", "apg", "-g", "3", "-n", "60", "--budget", "4")
    assert bench(*command, "--aim", "metric", "--results", one, "--workers", 1).code == 0
    process = start(*command, "--aim", "metric", "--results", ray, "--workers", 2)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    found = [
        read_result(result_path(root / "default" / "tuned", "modes1d-edm-s0", "apg"))
        for root in (one, ray)
    ]
    alike = {"seconds": 0.0, "created": ""}
    trials = [[trial.model_copy(update=alike) for trial in result.trials] for result in found]
    assert trials[0] == trials[1]
    assert found[0].knobs == found[1].knobs


def test_training_resumes_elsewhere_from_the_checkpoint_that_came_back(tmp_path: Path) -> None:
    # The worker dies once, at step 70 of 100, without a word.
    plugin = tmp_path / "dies.py"
    plugin.write_text(
        textwrap.dedent(
            f"""
            import os, signal, time
            from pathlib import Path
            from bench.system.launch.base import WORKER
            from bench.training import loop

            steps, quick = Path({str(tmp_path / "steps")!r}), loop.learning_rate

            def rate(settings, step):
                if WORKER in os.environ:
                    time.sleep(0.05)
                    with steps.open("a") as file:
                        file.write(f"{{step}}\\n")
                    if step == 70 and steps.read_text().count("70\\n") == 1:
                        os.kill(os.getpid(), signal.SIGKILL)
                return quick(settings, step)

            loop.learning_rate = rate
            """
        )
    )
    small = sets(*TINY, "train.iterations=100", "train.checkpoint_every=20")
    command = ("train", "-m", "edm", "-d", "modes1d", *small, "--plugin", plugin, "--results")
    process = start(*command, tmp_path / "ray", "--workers", 1)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "has died and is started again" in err
    steps = [int(line) for line in (tmp_path / "steps").read_text().split()]
    assert steps == [*range(71), *range(60, 100)]
    assert bench(*command, tmp_path / "one").code == 0
    weights = "default/runs/modes1d-edm-s0/model.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "ray" / weights).read_bytes()
    assert not leftovers(tmp_path / "ray")


def test_next_command_continues_after_the_death_of_the_first(tmp_path: Path) -> None:
    command = slow(tmp_path)
    rows = tmp_path / "ray" / "default" / "cells"
    process = start(*command, tmp_path / "ray", "--workers", 2)
    wait_for(lambda: len(list(rows.glob("modes1d-slow-s0/*.json"))) >= 3, process)
    process.kill()
    process.communicate()
    workers = {int(pid) for pid, _ in sampled(tmp_path)}
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = len(list(rows.glob("modes1d-slow-s0/*.json")))
    before = len(sampled(tmp_path))
    again = start(*command, tmp_path / "ray", "--workers", 2)
    out, err = again.communicate(timeout=300)
    assert (again.returncode, err) == (0, "")
    assert f"{SCALES - found} cells computed, {found} kept" in out
    assert len(sampled(tmp_path)) - before == SCALES - found
    equal_to_one_process(tmp_path, command)


def test_item_that_kills_its_workers_fails_alone(tmp_path: Path) -> None:
    command = slow(tmp_path, "if guidance.scale == 3: os.kill(os.getpid(), signal.SIGKILL)")
    out, err = (process := start(*command, tmp_path / "ray", "--workers", 2)).communicate()
    assert process.returncode == 1
    assert "Error: 1 cell failed. Run the same command to try again" in err
    assert [scale for _, scale in sampled(tmp_path)].count(3) == 3
    statuses = {row.guidance: row.status for row in rows_of(tmp_path / "ray", "slow")}
    assert statuses == dict.fromkeys(range(1, SCALES + 1), "ok") | {3: "failed"}
    assert "g=3 steps=18: 3 workers have died with it" in out


def test_interrupt_ends_workers_and_keeps_rows(tmp_path: Path) -> None:
    command = slow(tmp_path)
    process = start(*command, tmp_path / "ray", "--workers", 2)
    wait_for(lambda: len(sampled(tmp_path)) > 3, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "Stopped. Finished work is kept. Run the same command to continue.\n"
    assert not any(Path(f"/proc/{pid}").exists() for pid, _ in sampled(tmp_path))
    assert 0 < len(rows_of(tmp_path / "ray", "slow")) < SCALES
    assert not leftovers(tmp_path / "ray")


def test_worker_of_other_code_names_its_machine(tmp_path: Path) -> None:
    code = "from bench.system import member; import sys; member.code_hash = lambda _: 'other'"
    arguments = ["bench", *map(str, slow(tmp_path)), str(tmp_path / "ray"), "--workers", "1"]
    run = (
        f"{code}; sys.argv = {[*arguments, '--ray', ADDRESS]!r}; from bench.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"All workers have stopped: The code on {os.uname().nodename} is not" in (done.stderr)
    assert not rows_of(tmp_path / "ray", "slow")


def test_items_of_a_killed_node_are_computed_elsewhere(tmp_path: Path) -> None:
    command = slow(tmp_path, workers=3)
    process = start(*command, tmp_path / "ray", "--workers", 3)
    wait_for(lambda: len(sampled(tmp_path)) > 4, process)
    script("kill", 4)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "has died and is started again" in err
    assert f"{SCALES} cells computed, 0 kept, 0 skipped with a reason, 0 failed" in out
    # At most the cell that the dead worker was at is computed twice.
    assert len(sampled(tmp_path)) <= SCALES + 1
    equal_to_one_process(tmp_path, command)
