"""What `bench status` reads: results, failures and leases, of 10,000 rows too."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from bench.experiment.rows import write_row
from bench.system.leases import try_lease
from bench.system.record import FILE, read_progress, record, recording
from bench.system.sharing import lease_path
from tests.bench.helpers import bench
from tests.bench.report.factory import row


def _row(path: Path, status: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": "0" * 64, "status": status, "more": "x" * 1000}, indent=1))


def test_each_result_is_counted_by_its_file_and_lease(tmp_path: Path) -> None:
    root = tmp_path / "default"
    rows = [root / "cells" / "run" / f"{k}.json" for k in range(7)]
    weights = [root / "runs" / name / "model.safetensors" for name in ("a", "b")]
    with recording(root, fresh=True):
        record("sweep", [(path, f"cell {k}") for k, path in enumerate(rows)])
        record("train", [(path, path.parent.name) for path in weights])
    for path, status in zip(rows, ("ok", "ok", "diverged", "failed", "failed"), strict=False):
        _row(path, status)
    held = [try_lease(lease_path(rows[4])), try_lease(lease_path(rows[5]))]
    held.append(try_lease(weights[1].with_name(".lease")))
    weights[0].parent.mkdir(parents=True)
    weights[0].write_bytes(b"")
    here = f"process {os.getpid()} on {socket.gethostname()}"
    sweep, train = read_progress(root)
    assert (sweep.title, sweep.done, sweep.failed, sweep.left) == ("sweep", 3, 1, 1)
    assert sweep.running == {here: ["cell 4", "cell 5"]}
    assert (train.title, train.done, train.failed, train.left) == ("train", 1, 0, 0)
    assert train.running == {here: ["b"]}
    shown = bench("status", "--results", tmp_path)
    assert [line.split() for line in shown.out.splitlines() if "sweep" in line or "train" in line] \
        == [["│", "sweep", "│", "3", "│", "2", "│", "1", "│", "1", "│"],
            ["│", "train", "│", "1", "│", "1", "│", "0", "│", "0", "│"]]  # fmt: skip
    assert f"{here}: cell 4, cell 5" in shown.out
    for lease in held:
        assert lease is not None
        lease.release()


def test_command_replaces_the_record_of_the_one_before(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in ("a.json", "b.json"))
    for fresh, path in ((True, a), (False, b), (False, b)):
        with recording(tmp_path, fresh=fresh):
            record(path.stem, [(path, "")])
    assert [part.title for part in read_progress(tmp_path)] == ["a", "b"]
    with recording(tmp_path, fresh=True):
        assert len(read_progress(tmp_path)) == 2  # until the command has planned
        record("c", [(a, "")])
    assert [part.title for part in read_progress(tmp_path)] == ["c"]
    record("d", [(b, "")])  # outside a command
    assert [part.title for part in read_progress(tmp_path)] == ["c"]


def test_status_without_a_command_and_with_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    for suite in ((), ("--suite", "demo")):
        ran = bench("status", "--results", tmp_path, *suite)
        assert ran.code == 1
        assert "Error: No command has planned work in" in ran.err
    assert bench("status", "--suite", "none").code == 2
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / FILE).write_text("{")
    ran = bench("status", "--results", tmp_path)
    assert (ran.code, ran.err.endswith("work.json is damaged: remove it.\n")) == (1, True)


def test_status_of_written_rows_needs_no_torch(tmp_path: Path) -> None:
    root = tmp_path / "default"
    paths = [
        write_row(root / "cells", row("modes1d", "edm", float(k), status=status, key=f"{k}" * 64))
        for k, status in enumerate(("ok", "failed", "diverged"))
    ]
    with recording(root, fresh=True):
        record("sweep", [(path, "") for path in paths])
    (part,) = read_progress(root)
    assert (part.done, part.failed, part.left) == (2, 1, 0)
    code = (
        f"import sys; sys.argv = ['bench', 'status', '--results', {str(tmp_path)!r}]\n"
        "from bench.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
