"""A sweep in several processes of torchrun: the bytes of one, and what happens if one fails."""

import os
import shutil
import signal
import textwrap
import time
from pathlib import Path

import pytest

from bench.experiment.rows import Row
from bench.sweep import cells
from tests.bench.helpers import TINY_IMAGES, TOY_METRICS, bench, rows_of, sets, untimed
from tests.long import mostly_long
from tests.processes import group, new_interpreter, run_bench, torchrun
from tests.torture.check import content, leftovers

TOY = ("-g", "1,2,20", "-n", "100", "--batch", "16", *TOY_METRICS, "--save-samples", "npz")
DIGITS = (
    "-m", "edm", "-d", "digits", "-g", "1,3", "-n", "40", "--batch", "6", "--save-samples", "png",
    *("--metric", "fd", "--metric", "class_accuracy", "--metric", "kid", "--metric", "saturation"),
)  # fmt: skip


def together(processes: int, *arguments: object, run=run_bench) -> tuple[list[int], str, str]:
    """The exit statuses, the output and the errors of a command in several processes."""
    ranks = group(run, *map(str, arguments), processes=processes)
    said = [rank.communicate() for rank in ranks]
    out, err = ("".join(texts) for texts in zip(*said, strict=True))
    return [rank.returncode for rank in ranks], out, err


@pytest.mark.parametrize("processes", mostly_long([2, 4], [2]))
def test_processes_of_torchrun_write_the_bytes_of_one(trained: Path, processes: int) -> None:
    one = shutil.copytree(trained, trained.with_name("one"))
    alone = bench("sweep", *TOY, "--results", one)
    codes, out, err = together(processes, "sweep", *TOY, "--results", trained)
    assert (codes, err) == ([0] * processes, "")
    assert untimed(out) == untimed(alone.out).replace(str(one), str(trained))
    assert content(one) == content(trained)
    assert not leftovers(trained)
    lost = sorted(trained.rglob("g1-*.npz"))
    for path in lost:
        path.unlink()
    assert together(processes, "sweep", *TOY, "--results", trained)[0] == [0] * processes
    assert len(lost) > 2
    assert content(one) == content(trained)


@pytest.mark.long
def test_torchrun_measures_images_as_one_process(judged: Path, tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    own = ("train", "-m", "edm", "-d", "digits", *sets(*TINY_IMAGES))
    assert bench(*own, "--results", one).code == 0
    shutil.copytree(judged, one / "default" / "cache")
    shutil.copytree(one, four)
    alone = new_interpreter("sweep", *DIGITS, "--results", one)  # the sums of another one may round
    assert alone.wait() == 0
    ran = torchrun("-m", "bench", "sweep", *DIGITS, "--results", four, processes=4)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Rows are in") == 1
    contents = content(one)
    assert contents == content(four)
    assert sum("/cells/" in name for name in contents) > 2


FAULTY = """
    import os, signal, time
    from pathlib import Path
    import torch
    from methods import Preset, register
    from methods.oracle import Oracle

    @register
    class Faulty(Oracle):
        "The oracle, with a fault in the second batch."
        name = "faulty"
        summary = "fails"

        def sample(self, nets, labels, guidance, steps, rng):
            x = super().sample(nets, labels, guidance, steps, rng)
            g, rank, second = guidance.scale, os.environ.get("RANK", ""), rng.indices[0] == 8
            {then}
            return x
"""


def faulty(folder: Path, then: str) -> list[str]:
    """The arguments of a sweep of a method that executes `then` after each sampling."""
    plugin = folder / "faulty.py"
    plugin.write_text(textwrap.dedent(FAULTY.format(then=then)))
    return [
        "sweep", "-m", "faulty", "-d", "modes1d", "-g", "1..4", "-n", "32", "--batch", "8",
        "--plugin", str(plugin), *TOY_METRICS, "--results",
    ]  # fmt: skip


def rows_in(results: Path) -> list[Row]:
    """The rows of the method."""
    return rows_of(results, "faulty")


def test_faults_in_another_process_end_as_in_one(tmp_path: Path) -> None:
    then = """if second and g == 1: x = x * float("nan")
            if second and g == 2: raise KeyError("no such thing")
            if g == 3 and len(x) > 4: raise torch.OutOfMemoryError("CUDA out of memory")"""
    command = faulty(tmp_path, then)
    alone = bench(*command, tmp_path / "one")
    codes, out, err = together(2, *command, tmp_path / "two")
    assert (alone.code, codes) == (1, [1, 1])
    assert (
        err
        == alone.err
        == ("Error: 1 cell failed. Run the same command to try again; the others are kept.\n")
    )
    assert untimed(out) == untimed(alone.out)
    assert "continuing with batches of 4" in out
    assert content(tmp_path / "one") == content(tmp_path / "two")
    statuses = {row.guidance: row.status for row in rows_in(tmp_path / "two")}
    assert statuses == {1: "diverged", 2: "failed", 3: "ok", 4: "ok"}


@pytest.mark.parametrize("rank", mostly_long([0, 1], [1]))
def test_killed_process_ends_all_and_the_next_command_continues(tmp_path: Path, rank: int) -> None:
    pause = f'if rank == "{rank}" and g == 3: Path({str(tmp_path / "at")!r}).touch()\n'
    command = faulty(tmp_path, f"{pause}            if g == 3 and rank: time.sleep(0.5)")
    ranks = group(run_bench, *map(str, [*command, tmp_path / "two"]))
    deadline = time.monotonic() + 120
    while not (tmp_path / "at").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks[rank].send_signal(signal.SIGKILL)
    said = [process.communicate()[1] for process in ranks]
    assert said[1] == ""
    lost = "Error: Another process of this sweep has stopped. Finished work is kept. Run the same "
    assert said[0] == ("" if rank == 0 else f"{lost}command to continue.\n")
    assert [process.returncode for process in ranks] == ([-9, 1] if rank == 0 else [1, -9])
    assert [row.guidance for row in rows_in(tmp_path / "two")] == [1, 2]
    assert together(2, *command, tmp_path / "two")[0] == [0, 0]
    assert bench(*command, tmp_path / "one").code == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert not leftovers(tmp_path / "two")


def test_process_that_cannot_plan_is_named(tmp_path: Path) -> None:
    command = faulty(tmp_path, "pass")
    with (tmp_path / "faulty.py").open("a") as file:
        file.write('\nif os.environ["RANK"] == "1":\n    raise OSError("no such disk")\n')
    codes, out, err = together(2, *command, tmp_path / "results")
    assert codes == [1, 1]
    plugin = f"Plugin file {tmp_path / 'faulty.py'} cannot be used: OSError: no such disk (line "
    assert err.startswith(f"Error: Process 1 on {os.uname().nodename}: {plugin}")
    assert "Rows are in" not in out


def of_other_code(*arguments: str) -> None:
    """Run `bench`, in the second process with methods of another code."""
    if os.environ["RANK"] == "1":
        cells.code_hash = lambda _: "other"
    run_bench(*arguments)


def test_process_with_other_code_is_named(tmp_path: Path) -> None:
    command = faulty(tmp_path, "pass")
    codes, _, err = together(2, *command, tmp_path / "results", run=of_other_code)
    assert codes == [1, 1]
    assert err.startswith(
        f"Error: Process 1 on {os.uname().nodename} plans other cells than the first process: its "
        "code, data or checkpoints differ."
    )
    assert err.count("\n") == 1
    assert not rows_in(tmp_path / "results")


def test_bad_option_is_reported_once(tmp_path: Path) -> None:
    codes, _, err = together(2, "sweep", "-m", "no-such", "--results", tmp_path)
    assert codes == [2, 1]
    assert err.startswith("Error: Unknown method 'no-such'.")
    assert err.count("\n") == 1
