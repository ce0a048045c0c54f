"""A Slurm of two nodes on loopback for the tests of this folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.bench.conftest import (  # noqa: F401 - fixtures for every test
    _registries_restored_after_a_module,
    _registries_restored_after_a_test,
)

SCRIPT = Path(__file__).with_name("slurm.sh")


@dataclass(frozen=True)
class Cluster:
    """Slurm's two nodes, n1 and n2."""

    folder: Path

    def script(self, *arguments: str) -> str:
        """Run slurm.sh; its output."""
        # The daemons that it starts keep its output open: to a file it may not wait for them.
        with (self.folder / "script.log").open("a+") as log:
            start = log.tell()
            subprocess.run([SCRIPT, *arguments], stdout=log, stderr=log, check=True, timeout=120)
            log.seek(start)
            return log.read()

    def kill(self, node: str) -> None:
        """End a node with all that runs on it."""
        self.script("kill", node, str(self.folder))

    def start(self, node: str) -> None:
        """Start it again."""
        self.script("node", node, str(self.folder))

    def node_of(self, pid: str) -> str:
        """The node on which a process runs."""
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(v[16:].decode() for v in variables if v.startswith(b"SLURMD_NODENAME="))


def slurm(*call: str) -> str:
    """The output of a command of Slurm."""
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout


def _start_requeued_at_once(ended: Event) -> None:
    """Slurm lets what was requeued wait for two minutes: set its time to now."""
    while not ended.wait(1.0):
        for line in slurm("squeue", "--noheader", "--array", "--format", "%i %r").splitlines():
            job, reason = line.split(" ", 1)
            if reason == "BeginTime":
                subprocess.run(
                    ["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True
                )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if any(shutil.which(program) is None for program in ("slurmctld", "slurmd", "munged")):
        pytest.skip("Slurm is not installed: tests/cluster/slurm.sh up DIR --install")
    pytest.importorskip("submitit")
    found = Cluster(tmp_path_factory.mktemp("slurm"))
    found.script("up", str(found.folder))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(found.folder / "slurm.conf")
    ended = Event()
    thread = Thread(target=_start_requeued_at_once, args=(ended,))
    thread.start()
    yield found
    ended.set()
    thread.join()
    found.script("down", str(found.folder))
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before


@pytest.fixture
def no_jobs(cluster: Cluster) -> Iterator[None]:
    """Cancel what a failed test has left in the queue."""
    yield
    subprocess.run(["scancel", "--user", "root"], capture_output=True)
    deadline = time.monotonic() + 60
    while slurm("squeue", "--noheader") and time.monotonic() < deadline:
        time.sleep(0.5)
