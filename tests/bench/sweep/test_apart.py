"""Workers that do not share the folders of their command: here each has copies in its own."""

import json
import os
import re
import shutil
import signal
import textwrap
import time
from pathlib import Path

import pytest

from bench.system.apart import LOSSES, Loans, Offer
from bench.system.sharing import lease_path
from bench.training.checkpoint import STATE, load_state
from bench.tuning.store import read_result, result_path
from tests.bench.helpers import TINY, TOY_METRICS, bench, rows_of, sets
from tests.processes import start
from tests.torture.check import content, leftovers

COPYING = """
    import shutil, tempfile, json
    from contextlib import suppress
    from dataclasses import dataclass
    from pathlib import Path
    from threading import Event
    from bench.system.files import write_bytes
    from bench.system.launch import Call, Launcher, register
    from bench.system.launch.base import APART, RESULTS
    from bench.system.launch.local import Child

    @dataclass(frozen=True)
    class Moved(Call):
        copies: str = ""

        def environment(self, number):
            more = {APART: "\\0", **self.apart.environment}
            own = {name: value.replace("\\0", self.copies) for name, value in more.items()}
            return super().environment(number) | own

    class Worker(Child):
        def __init__(self, call, number):
            call.folder.mkdir(parents=True, exist_ok=True)
            self.call, self.copies = call, Path(tempfile.mkdtemp(dir=call.folder.parents[1]))
            self.number = number
            self.begun = Event()

        def lines(self):
            call = self.call
            for place, path in call.apart.files().items():
                (self.copies / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.copies / place)
            arguments = [a.replace("\\0", str(self.copies)) for a in call.apart.arguments]
            own = {"apart": call.apart, "copies": str(self.copies)}
            moved = Moved(arguments, call.folder, call.count, call.code, **own)
            super().__init__(moved, self.number)
            self.begun.set()
            for line in super().lines():
                self.carry(line, self.copies / RESULTS, self.call.apart.results)
                yield line

        def carry(self, line, source, target):
            for name in json.loads(line).get("files", ()):
                with suppress(FileNotFoundError):
                    write_bytes(target / name, (source / name).read_bytes())

        def stop(self):
            self.begun.wait()
            super().stop()

        def wait(self, seconds):
            return super().wait(seconds) if self.begun.wait(seconds) else None

        def send(self, line):
            self.carry(line, self.call.apart.results, self.copies / RESULTS)
            self._process.stdin.write(f"{line}\\n".encode())
            self._process.stdin.flush()

    @register
    class Copying(Launcher):
        name = "copying"
        summary = "copies every file"
        shares_folders = False

        def start(self, call, numbers):
            return [Worker(call, number) for number in numbers]
"""


def sweep(results: Path, plugin: Path, *more: object) -> tuple[int, str, str]:
    """The exit status, output and errors of a sweep of all runs."""
    process = start(
        "sweep", "-g", "1,2,20", "-n", "40", *TOY_METRICS, "--save-samples", "npz", "--plugin",
        plugin, "--results", results, *more,
    )  # fmt: skip
    out, err = process.communicate()
    assert process.returncode is not None
    return process.returncode, out, err


def said(out: str) -> list[str]:
    """The lines of an output that are not those of bars, whose times and order differ."""
    return [line for line in out.splitlines() if not re.search(r": \d+/\d+ ", line)]


@pytest.mark.long
def test_workers_with_copies_end_with_the_bytes_of_one_process(
    trained: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "copying.py"
    plugin.write_text(textwrap.dedent(COPYING))
    one, two = (shutil.copytree(trained, tmp_path / name / "results") for name in ("one", "two"))
    alone = sweep(one, plugin)
    apart = sweep(two, plugin, "--launcher", "copying", "--workers", "2")
    assert [ran[0] for ran in (alone, apart)] == [0, 0], apart
    assert [ran[2] for ran in (alone, apart)] == ["", ""]
    assert said(alone[1].replace(str(one), str(two))) == said(apart[1])
    assert content(one) == content(two)
    assert not leftovers(two)
    next(two.glob("default/cells/modes1d-edm-s0/*.json")).unlink()
    again = sweep(two, plugin, "--launcher", "copying", "--workers", "1")
    assert "1 cell computed" in again[1]
    assert content(one) == content(two)


SLOWLY = """
    import os, time
    from bench.system.launch.base import WORKER
    from bench.training import loop

    quick = loop.learning_rate

    def rate(settings, step):
        time.sleep(0.02)
        return quick(settings, step)

    if WORKER in os.environ:
        loop.learning_rate = rate
"""


@pytest.mark.long
def test_training_with_copies_is_stopped_and_resumed(tmp_path: Path) -> None:
    plugin = tmp_path / "copying.py"
    plugin.write_text(textwrap.dedent(COPYING) + textwrap.dedent(SLOWLY))
    small = sets(*TINY, "train.iterations=400", "train.checkpoint_every=30")
    command = ("train", "-m", "edm", "-m", "igct", "-m", "ct", "-d", "modes1d", *small)
    command = (*command, "--plugin", plugin, "--results")
    one, two = tmp_path / "one" / "results", tmp_path / "two" / "results"
    assert bench(*command, one, "--workers", "1").code == 0
    apart = (*command, two, "--launcher", "copying", "--workers", "2")
    process = start(*apart)
    saved = two / "default" / "runs"
    while process.poll() is None and not list(saved.glob(f"*/{STATE}")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 130, err
    steps = {path.parent.name: load_state(path).step for path in saved.glob(f"*/{STATE}")}
    ends = dict(re.findall(r"Stopped (\S+) at step (\d+) of 400; its checkpoint is written", out))
    assert ends
    # Also the checkpoint that a worker wrote as it stopped has come back.
    assert {name: steps[name] for name in ends} == {name: int(k) for name, k in ends.items()}
    assert max(steps.values()) >= 30
    out, err = start(*apart).communicate()
    assert err == ""
    assert content(one) == content(two)
    assert not leftovers(two)


@pytest.mark.long
def test_tuning_with_copies_finds_the_knobs_of_one_process(trained: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "copying.py"
    plugin.write_text(textwrap.dedent(COPYING))
    one, two = (shutil.copytree(trained, tmp_path / name / "results") for name in ("one", "two"))
    command = ("tune", "-m", "edm", "--rule", "apg", "-g", "3", "-n", "60", "--budget", "5")
    command = (*command, "--plugin", plugin, "--results")
    found = []
    for results, how in ((one, ()), (two, ("--launcher", "copying", "--workers", "2"))):
        out, err = start(*command, results, *how).communicate()
        assert err == "", out
        result = read_result(result_path(results / "default" / "tuned", "modes1d-edm-s0", "apg"))
        alike = {"seconds": 0.0, "created": ""}
        trials = [trial.model_copy(update=alike) for trial in result.trials]
        found.append((result.knobs, result.score, trials))
    assert found[0] == found[1]
    assert {path.relative_to(one) for path in one.rglob("*")} == {
        path.relative_to(two) for path in two.rglob("*")
    }
    assert not leftovers(two)


FAULTS = """
    import errno, os, time
    from pathlib import Path
    from bench.system.launch import Launcher, register as register_launcher
    from bench.system.launch.base import WORKER
    from bench.system.launch.local import Child
    from methods import register
    from methods.oracle import Oracle

    FAULT = Path({fault!r})
    MET = FAULT.with_name("met")
    WHO = os.environ.get(WORKER, "command")
    whole = os.fsync

    def fsync(fd):
        own = "/cells/" in os.readlink(f"/proc/self/fd/{{fd}}") and FAULT.exists()
        if own and WHO.startswith(FAULT.read_text()):
            MET.write_text(str(os.getpid()))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(fd)

    os.fsync = fsync

    @register
    class Frail(Oracle):
        "The oracle, until its memory is full."
        name = "frail"
        summary = "runs out of memory"

        def sample(self, nets, labels, guidance, steps, rng):
            if guidance.scale == 2 and FAULT.exists() and FAULT.read_text() == "memory":
                raise MemoryError
            while not WHO.startswith("1/") and FAULT.exists() and FAULT.read_text() == "1/":
                # The faulty worker has ended before the work is done, so that its end is told.
                if MET.exists() and not Path("/proc", MET.read_text() or "self").exists():
                    break
                time.sleep(0.05)
            return super().sample(nets, labels, guidance, steps, rng)

    @register_launcher
    class Beside(Launcher):
        name = "beside"
        summary = "processes beside the command, which computes nothing, in its folders"

        def start(self, call, numbers):
            return [Child(call, number) for number in numbers]
"""
FULL = "No space left on device: "


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "fault", "code", "sentence"),
    [
        ("copying", "memory", 1, "g=2 steps=18: Worker {n} on {host}: MemoryError"),
        ("beside", "memory", 1, "g=2 steps=18: Worker {n} on {host}: MemoryError"),
        ("copying", "1/", 0, f"Worker 1 on {{host}} has stopped, the others continue: {FULL}"),
        ("beside", "1/", 0, f"Worker 1 on {{host}} has stopped, the others continue: {FULL}"),
        ("beside", "", 1, f"Error: All workers have stopped: {FULL}"),
        ("copying", "command", 1, f"Error: {FULL}"),
    ],
)
def test_full_machine_of_a_worker_loses_no_cell(
    tmp_path: Path, launcher: str, fault: str, code: int, sentence: str
) -> None:
    plugins = [tmp_path / "copying.py", tmp_path / "faults.py"]
    flag = tmp_path / "fault"
    flag.write_text(fault)
    for path, text in zip(plugins, (COPYING, FAULTS.format(fault=str(flag))), strict=True):
        path.write_text(textwrap.dedent(text))
    results = tmp_path / "sub" / "results"
    command = [
        "sweep", "-m", "frail", "-d", "modes1d", "-g", "1..6", "-n", "16", *TOY_METRICS,
        "--plugin", plugins[0], "--plugin", plugins[1], "--workers", "2", "--results",
    ]  # fmt: skip
    process = start(*command, results, "--launcher", launcher)
    out, err = process.communicate()
    host = os.uname().nodename
    assert process.returncode == code, err
    assert any(sentence.format(n=n, host=host) in out + err for n in (1, 2)), out + err
    flag.unlink()
    out, err = (process := start(*command, results, "--launcher", launcher)).communicate()
    assert (process.returncode, err) == (0, ""), out
    alone = tmp_path / "alone" / "results"
    assert start(*command, alone, "--workers", "1").communicate()[1] == ""
    found = [
        {row.guidance: {v.metric: (v.value, v.se) for v in row.values} for row in rows}
        for rows in (rows_of(alone, "frail"), rows_of(results, "frail"))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 6
    assert not leftovers(results)


def test_bad_settings_of_ray_are_named() -> None:
    for settings, sentence in (
        ("ray:adress=x", "Launcher 'ray' has no setting 'adress'. Available: address, cpus, gpus"),
        ("ray:gpus=-1", "gpus of launcher 'ray' is a number from 0 up, got '-1'."),
    ):
        ran = bench("sweep", "--launcher", settings, "--workers", "2")
        assert ran.code == 2
        assert ran.err.startswith(f"Error: {sentence}")


def test_command_holds_the_leases_of_its_workers(tmp_path: Path) -> None:
    done = False
    rows = [tmp_path / "cells" / name for name in ("a.json", "b.json")]
    offers = {
        lease_path(row): Offer(row, lambda: done, lambda: True, lambda _: None) for row in rows
    }
    names = [str(lease_path(row).relative_to(tmp_path)) for row in rows]
    loans, other = Loans(tmp_path), Loans(tmp_path)

    def ask(of: Loans, number: int, name: str) -> str:
        answer: str = json.loads(of.ask(number, name))["take"]
        return answer

    assert ask(loans, 1, names[0]) == "later"  # not on offer yet
    loans.offer(offers)
    other.offer(offers)
    assert [ask(loans, 1, names[0]), ask(loans, 2, names[0])] == ["yes", "later"]
    assert ask(other, 1, names[0]) == "later"
    loans.end(rows[0])
    assert ask(other, 1, names[0]) == "yes"
    rows[1].write_bytes(b"partial")
    for loss in range(1, LOSSES + 1):
        answer = json.loads(loans.ask(2, names[1]))
        assert answer["files"] == ["cells/b.json"]
        assert loans.lose(1) == []
        lost = [offer.path for offer in loans.lose(2)]
        assert lost == ([rows[1]] if loss == LOSSES else [])
    assert ask(loans, 2, names[1]) == "later"  # until its failure is stored
    done = True
    assert ask(loans, 1, names[1]) == "done"
    done = False
    loans.offer({})
    assert ask(loans, 1, names[1]) == "done"  # of an earlier part of the command
