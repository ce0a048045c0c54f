"""Several processes training one run: if one ends, all end, each with an error sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system.errors import UserError
from bench.training.card import WEIGHTS
from bench.training.checkpoint import STATE, load_weights
from bench.training.processes import leader_first, lost_process_explained
from tests.bench.helpers import TINY, sets

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY, "train.checkpoint_every=5"))
DRIVER = """
import errno, os, sys
from bench.cli import app as cli
from bench.training import loop as train
from bench.training import log as train_log

rank, where, times, name = sys.argv[1:5]
sys.argv = ["bench", *sys.argv[5:]]
module = {"train": train, "log": train_log.Log}[where]
real, calls = getattr(module, name), 0

def fail(*arguments, **options):
    global calls
    calls += 1
    if calls == int(times):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk")
    return real(*arguments, **options)

if os.environ["RANK"] == rank:
    setattr(module, name, fail)
cli.main()
"""


def launch(folder, *fault):
    """Train in two processes; `fault` is (rank, module, number of the call, function)."""
    folder.mkdir(exist_ok=True)
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         driver, *(fault or ("9", "train", "1", "near")), *COMMAND, "--results", folder / "results",
         "--device", "cpu"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run_of(folder):
    return folder / "results" / "default" / "runs" / "modes1d-edm-s0"


def check_sentences(done, *starts):
    """Check for one sentence per process and no traceback except for the launcher's own."""
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == len(starts), done.stderr
    for start in starts:
        assert any(line.startswith(f"Error: {start}") for line in said), said
    assert "[rank" not in done.stderr, done.stderr


FULL = "No space left on device: /disk. Free some disk space there"


@pytest.mark.parametrize(
    ("fault", "checkpoint"),
    [
        pytest.param(("0", "train", "2", "save_newest"), True, id="checkpoint"),
        pytest.param(("0", "log", "1", "_write"), False, id="log"),
    ],
)
def test_an_error_of_the_first_process_alone_ends_both(fault, checkpoint, tmp_path):
    done = launch(tmp_path, *fault)
    check_sentences(
        done,
        f"Training of modes1d-edm-s0 stopped in {run_of(tmp_path)}: {FULL}",
        f"The first process stopped, and this one with it: {FULL}",
    )
    assert (run_of(tmp_path) / STATE).exists() == checkpoint
    if checkpoint:
        undisturbed = tmp_path / "undisturbed"
        for folder in (tmp_path, undisturbed):
            assert launch(folder).returncode == 0
        one, two = (load_weights(run_of(f) / WEIGHTS) for f in (tmp_path, undisturbed))
        assert one.keys() == two.keys()
        assert all(one[name].equal(two[name]) for name in one)


def test_an_error_of_another_process_ends_the_first(tmp_path):
    done = launch(tmp_path, "1", "train", "7", "accumulate_gradients")
    own = f"Training of modes1d-edm-s0 stopped in {run_of(tmp_path)}: {FULL}"
    other = "Another training process stopped; its message is above. Finished work is kept."
    # The launcher polls every 0.1 s and may kill the first process before it prints its message.
    check_sentences(done, own, *([other] if other in done.stderr else []))
    assert (run_of(tmp_path) / STATE).exists()


STOP = """
import os, signal, sys
from bench.cli import app as cli
from bench.training import loop as train
from bench.training.step import learning_rate

def rate(settings, step):
    if step == settings.iterations - 1 and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGTERM)
    return learning_rate(settings, step)

train.learning_rate = rate
cli.main()
"""


def test_signal_to_one_process_in_the_last_step_stops_both(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(STOP)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         driver, *COMMAND, "-m", "gft", "--results", tmp_path / "results", "--device", "cpu"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Stopped after the last step of modes1d-edm-s0" in done.stderr
    assert [folder.name for folder in run_of(tmp_path).parent.iterdir()] == ["modes1d-edm-s0"]
    assert (run_of(tmp_path) / WEIGHTS).exists()


class Fabric:
    """One of two processes; `heard` is the text that the first one broadcasts."""

    world_size = 2

    def __init__(self, first, heard=""):
        self.is_global_zero, self.heard, self.said = first, heard, []

    def broadcast(self, text):
        self.said.append(text)
        return text if self.is_global_zero else self.heard


def test_first_process_raises_its_error_after_the_others_know():
    fabric = Fabric(first=True)
    with leader_first(fabric) as leads:
        assert leads
    with pytest.raises(KeyError), leader_first(fabric):
        raise KeyError("name")
    assert fabric.said == ["", "KeyError: 'name'."]


def test_other_processes_continue_or_stop_with_the_first():
    with leader_first(Fabric(first=False)) as leads:
        assert not leads
    with (
        pytest.raises(UserError, match="The first process stopped, and this one with it: Full"),
        leader_first(Fabric(first=False, heard="Full.")),
    ):
        pass


def test_other_errors_than_the_loss_of_a_process_stay_what_they_are():
    for error in (RuntimeError("shapes differ"), ValueError("Connection closed by peer")):
        with pytest.raises(type(error)), lost_process_explained(Fabric(first=True)):
            raise error
    with (
        pytest.raises(UserError, match="Another training process stopped"),
        lost_process_explained(Fabric(first=True)),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:1")
