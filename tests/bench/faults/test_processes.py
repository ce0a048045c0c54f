"""Several processes training one run: if one ends, all end, each with an error sentence."""

import errno
import os
import signal
import sys

import pytest

from bench.system.errors import UserError
from bench.training import loop
from bench.training.card import WEIGHTS
from bench.training.checkpoint import STATE, load_weights
from bench.training.log import Log
from bench.training.processes import leader_first, lost_process_explained
from bench.training.step import learning_rate
from tests.bench.helpers import TINY, sets
from tests.processes import group, run_bench, torchrun

COMMAND = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY, "train.checkpoint_every=5"))


def fail_at(rank, where, times, name, *arguments):
    """Run `bench` with a full disk at the `times`-th call of a function in one of the processes."""
    place = {"train": loop, "log": Log}[where]
    real, calls = getattr(place, name), 0

    def fail(*given, **options):
        nonlocal calls
        calls += 1
        if calls == int(times):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk")
        return real(*given, **options)

    if os.environ["RANK"] == rank:
        setattr(place, name, fail)
    run_bench(*arguments)


def stop_in_the_last_step(*arguments):
    """Run `bench` with a signal to the second process in the last step."""

    def rate(settings, step):
        if step == settings.iterations - 1 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return learning_rate(settings, step)

    loop.learning_rate = rate
    run_bench(*arguments)


def launch(launched, call, *arguments):
    """The exit status and errors of a call in two processes, started by torchrun or forked."""
    if not launched:
        both = group(call, *map(str, arguments))
        errors = [process.communicate()[1] for process in both]
        return max(process.returncode for process in both), "".join(errors)
    code = f"import sys\nfrom {__name__} import {call.__name__}\n{call.__name__}(*sys.argv[1:])"
    done = torchrun("--no-python", sys.executable, "-c", code, *arguments)
    return done.returncode, done.stderr


def train(launched, folder, *fault):
    """Train in two processes; `fault` is (rank, module, number of the call, function)."""
    folder.mkdir(exist_ok=True)
    fault = fault or ("9", "train", "1", "near")
    own = ("--results", folder / "results", "--device", "cpu")
    return launch(launched, fail_at, *fault, *COMMAND, *own)


def run_of(folder):
    return folder / "results" / "default" / "runs" / "modes1d-edm-s0"


def check_sentences(done, *starts):
    """Check for one sentence per process and no traceback except for the launcher's own."""
    code, errors = done
    assert code == 1
    said = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert len(said) == len(starts), errors
    for start in starts:
        assert any(line.startswith(f"Error: {start}") for line in said), said
    assert "[rank" not in errors, errors


LAUNCHERS = pytest.mark.parametrize(
    "launched", [False, pytest.param(True, marks=pytest.mark.long)], ids=["forked", "torchrun"]
)
FULL = "No space left on device: /disk. Free some disk space there"


@LAUNCHERS
@pytest.mark.parametrize(
    ("fault", "checkpoint"),
    [
        pytest.param(("0", "train", "2", "save_newest"), True, id="checkpoint"),
        pytest.param(("0", "log", "1", "_write"), False, id="log"),
    ],
)
def test_an_error_of_the_first_process_alone_ends_both(fault, checkpoint, launched, tmp_path):
    done = train(launched, tmp_path, *fault)
    check_sentences(
        done,
        f"Training of modes1d-edm-s0 stopped in {run_of(tmp_path)}: {FULL}",
        f"The first process stopped, and this one with it: {FULL}",
    )
    assert (run_of(tmp_path) / STATE).exists() == checkpoint
    if checkpoint:
        undisturbed = tmp_path / "undisturbed"
        for folder in (tmp_path, undisturbed):
            assert train(launched, folder)[0] == 0
        one, two = (load_weights(run_of(f) / WEIGHTS) for f in (tmp_path, undisturbed))
        assert one.keys() == two.keys()
        assert all(one[name].equal(two[name]) for name in one)


@LAUNCHERS
def test_an_error_of_another_process_ends_the_first(launched, tmp_path):
    done = train(launched, tmp_path, "1", "train", "7", "accumulate_gradients")
    own = f"Training of modes1d-edm-s0 stopped in {run_of(tmp_path)}: {FULL}"
    other = "Another training process stopped; its message is above. Finished work is kept."
    # The launcher polls every 0.1 s and may kill the first process before it prints its message.
    check_sentences(done, own, *([other] if other in done[1] else []))
    assert (run_of(tmp_path) / STATE).exists()


@LAUNCHERS
def test_signal_to_one_process_in_the_last_step_stops_both(launched, tmp_path):
    own = ("-m", "gft", "--results", tmp_path / "results", "--device", "cpu")
    code, errors = launch(launched, stop_in_the_last_step, *COMMAND, *own)
    # torchrun's own status is 1; a process that was asked to stop ends with 130.
    assert code == (1 if launched else 130)
    assert "Stopped after the last step of modes1d-edm-s0" in errors
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
