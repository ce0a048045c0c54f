"""Workers that do not share the folders of their command: here each has copies in its own."""

import base64
import json
import shutil
import textwrap
from pathlib import Path

import pytest

from bench.system.apart import LOSSES, Loans, Offer
from bench.system.sharing import lease_path
from tests.bench.helpers import TOY_METRICS, bench
from tests.processes import start
from tests.torture.check import content, leftovers

COPYING = """
    import shutil, tempfile, json
    from dataclasses import dataclass
    from pathlib import Path
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
            self.call, self.copies = call, Path(tempfile.mkdtemp(dir=call.folder.parents[1]))
            for place, path in call.apart.files().items():
                (self.copies / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.copies / place)
            arguments = [a.replace("\\0", str(self.copies)) for a in call.apart.arguments]
            own = {"apart": call.apart, "copies": str(self.copies)}
            super().__init__(Moved(arguments, call.folder, call.count, call.code, **own), number)

        def lines(self):
            for line in super().lines():
                for name in json.loads(line).get("files", ()):
                    target = self.call.apart.results / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(self.copies / RESULTS / name, target)
                yield line

        def send(self, line):
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
    """The lines of an output that do not show progress."""
    return [line for line in out.splitlines() if " left. " not in line]


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
    assert "1 cells computed" in again[1]
    assert content(one) == content(two)


def test_training_with_workers_that_have_copies_is_refused(tmp_path: Path) -> None:
    ran = bench("train", "-m", "edm", "-m", "ct", "--ray", "auto", "--results", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "Error: Workers of launcher 'ray' share no folder, which only bench sweep can do: use "
        "--launcher local or slurm.\n"
    )


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
    offers = {lease_path(row): Offer(row, lambda: done) for row in rows}
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
        assert base64.b64decode(answer["content"]) == b"partial"
        assert answer["row"] == "cells/b.json"
        assert loans.lose(1) == []
        assert loans.lose(2) == ([rows[1]] if loss == LOSSES else [])
    done = True
    assert ask(loans, 1, names[1]) == "done"
    done = False
    loans.offer({})
    assert ask(loans, 1, names[1]) == "done"  # of an earlier part of the command
