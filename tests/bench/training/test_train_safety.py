import os
import re
import signal
import time

import pytest
import torch

from bench.data.find import find_dataset
from bench.system.errors import UserError
from bench.system.leases import LEASE, read_holder, try_lease
from bench.training import loop as training
from bench.training.card import CARD, WEIGHTS, make_method, read_card
from bench.training.checkpoint import (
    PREVIOUS,
    STATE,
    load_newest,
    load_state,
    load_weights,
    save_weights,
)
from bench.training.loop import Stopped, train
from methods import METHODS
from methods.edm import EDM
from methods.rng import derive_seed
from tests.bench.helpers import TINY, bench, contents, randomised, sets, tiny_card
from tests.bench.training.steps import at_step, crash, steps_logged
from tests.processes import new_interpreter, start_slow_training

EVERY = "train.checkpoint_every=4"


def flip(path, offset=-1):
    content = bytearray(path.read_bytes())
    content[offset] ^= 16
    path.write_bytes(content)


# One process at a time


@pytest.mark.parametrize(
    ("starts", "steps"),
    [(start_slow_training, 150), pytest.param(new_interpreter, 1500, marks=pytest.mark.long)],
    ids=["forked", "new"],
)
def test_run_in_training_is_refused_unless_its_process_was_killed(tmp_path, starts, steps):
    settings = sets(*TINY, f"train.iterations={steps}", "train.checkpoint_every=50")
    command = ["train", "-m", "edm", "-d", "modes1d", *settings, "--results", str(tmp_path)]
    process = starts(*command)
    folder = tmp_path / "default" / "runs" / "modes1d-edm-s0"
    while process.poll() is None and not (folder / STATE).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    before = contents(folder)
    ran = bench(*command)
    assert ran.code == 1
    assert ran.err.startswith(
        f"Error: Run 'modes1d-edm-s0' is being made by process {process.pid} on "
    )
    assert "wait for it or stop it, then run the same command again" in ran.err
    assert contents(folder) == before
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / LEASE).exists()
    assert bench(*command).code == 0
    assert sorted(contents(folder)) == ["log.jsonl", WEIGHTS, CARD]
    assert steps_logged(folder) == list(range(steps))


def test_lease_ends_with_training_even_after_an_error(tmp_path, fabric, monkeypatch):
    card, data = tiny_card("edm", "modes1d", EVERY), find_dataset("modes1d")
    at_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped):
        train(card, data, tmp_path / "a", fabric=fabric)
    at_step(monkeypatch, 6, crash)
    with pytest.raises(RuntimeError, match="power"):
        train(card, data, tmp_path / "a", fabric=fabric)
    held = []
    at_step(monkeypatch, 6, lambda: held.append(read_holder(tmp_path / "a" / LEASE)))
    train(card, data, tmp_path / "a", fabric=fabric)
    assert len(held) == 1
    assert held[0].startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("taken over", r"^Another process took over run 'modes1d-edm-s0'"),
        (
            "removed",
            r"/\S+ is gone, as when its disk was unmounted, or another process",
        ),
    ],
)
def test_process_that_lost_its_lease_stops_and_writes_nothing(
    tmp_path, fabric, monkeypatch, how, says
):
    card, data = tiny_card("edm", "modes1d", EVERY), find_dataset("modes1d")
    path = tmp_path / LEASE
    kept = {}

    def lose():
        other = re.sub("(host|token)=.*", r"\1=another", path.read_text())
        path.rename(tmp_path / "aside")
        if how == "taken over":
            path.write_text(other)
        (tmp_path / "aside").unlink()
        kept.update(contents(tmp_path))

    at_step(monkeypatch, 5, lose)
    with pytest.raises(UserError, match=says):
        train(card, data, tmp_path, fabric=fabric)
    assert contents(tmp_path) == kept
    assert load_state(tmp_path / STATE).step == 4
    assert steps_logged(tmp_path) == list(range(4))


def test_import_refuses_a_run_in_training(tmp_path):
    card = tiny_card("edm", "digits")
    weights = randomised(make_method(card, find_dataset("digits"))).state_dict()
    save_weights(tmp_path / "w.safetensors", weights)
    results = tmp_path / "results"
    arguments = ("import", tmp_path / "w.safetensors", "--as", "x", "-m", "edm", "-d", "digits")
    folder = results / "default" / "runs" / "x"
    lease = try_lease(folder / LEASE)
    ran = bench(*arguments, "--results", results)
    assert ran.code == 1
    refusal = f"Error: Run 'x' is being made by process {os.getpid()} on "
    assert ran.err.splitlines()[-1].startswith(refusal)
    assert sorted(contents(folder)) == [LEASE]
    lease.release()
    ran = bench(*arguments, "--results", results)
    assert ran.code == 0, ran.err
    assert sorted(contents(folder)) == [WEIGHTS, CARD]


def test_weights_without_a_card_are_refused(tmp_path, fabric):
    card, data = tiny_card("edm"), find_dataset("modes1d")
    save_weights(tmp_path / WEIGHTS, {"x": torch.zeros(1)})
    with pytest.raises(UserError, match=r"has weights but no run\.json"):
        train(card, data, tmp_path, fabric=fabric)
    assert sorted(contents(tmp_path)) == [WEIGHTS]


def test_damaged_weights_of_a_finished_run_are_refused(trained):
    folder = trained / "default" / "runs" / "modes1d-edm-s0"
    flip(folder / WEIGHTS)
    ran = bench("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", trained)
    assert ran.code == 1
    assert f"Checkpoint {folder / WEIGHTS} is cut short or damaged" in ran.err
    ran = bench("sweep", "-m", "edm", "-g", "1", "-n", "8", "--metric", "w1", "--results", trained)
    assert ran.code == 1
    assert "does not match its stored SHA-256" in ran.err


def test_checkpoints_left_next_to_the_weights_by_a_kill_are_removed(tmp_path, fabric, monkeypatch):
    card, data = tiny_card("edm", "modes1d", EVERY), find_dataset("modes1d")
    monkeypatch.setattr(training, "remove_states", lambda folder: crash())
    with pytest.raises(RuntimeError, match="power"):
        train(card, data, tmp_path, fabric=fabric)
    monkeypatch.undo()
    whole = (tmp_path / WEIGHTS).read_bytes()
    assert {STATE, PREVIOUS} <= contents(tmp_path).keys()
    assert train(card, data, tmp_path, fabric=fabric).read_bytes() == whole
    assert sorted(contents(tmp_path)) == ["log.jsonl", WEIGHTS, CARD]


# The checkpoint before


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path, damage):
    card = ["train", "-m", "ct", "-d", "modes1d", *sets(*TINY, EVERY), "--init-from", "none"]
    assert bench(*card, "--results", tmp_path / "whole").code == 0
    whole = (tmp_path / "whole" / "default" / "runs" / "modes1d-ct-s0" / WEIGHTS).read_bytes()
    folder = tmp_path / "run" / "default" / "runs" / "modes1d-ct-s0"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 10, crash)
        with pytest.raises(RuntimeError, match="power"):
            bench(*card, "--results", tmp_path / "run")
    assert [load_state(folder / name).step for name in (STATE, PREVIOUS)] == [8, 4]
    if damage == "flipped":
        flip(folder / STATE, -100)
    elif damage == "cut":
        (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-7])
    else:
        (folder / STATE).unlink()
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 6, crash)
        with pytest.raises(RuntimeError, match="power"):
            bench(*card, "--results", tmp_path / "run")
    # Of the two files one is good again, and the damaged one never becomes the one before.
    assert load_state(folder / STATE).step == 4
    assert not (folder / PREVIOUS).exists()
    assert steps_logged(folder) == list(range(4))
    ran = bench(*card, "--results", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert (folder / WEIGHTS).read_bytes() == whole
    assert sorted(contents(folder)) == ["log.jsonl", WEIGHTS, CARD]


def test_falling_back_prints_a_message(tmp_path, fabric, monkeypatch):
    card, data = tiny_card("edm", "modes1d", EVERY), find_dataset("modes1d")
    at_step(monkeypatch, 10, crash)
    with pytest.raises(RuntimeError, match="power"):
        train(card, data, tmp_path, fabric=fabric)
    flip(tmp_path / STATE)
    said = []
    state, used = load_newest(tmp_path, said.append)
    assert (state.step, used) == (4, tmp_path / PREVIOUS)
    assert said == [
        f"{tmp_path / STATE} is cut short or damaged: training resumes from the previous "
        "one, of step 4."
    ]
    flip(tmp_path / PREVIOUS)
    with pytest.raises(UserError, match=f"Checkpoint {tmp_path / STATE} is cut short or damaged"):
        train(card, data, tmp_path, fabric=fabric)


# Losses from which no training goes on


class Unlucky(EDM):
    """NaN in one step of the first attempts, told apart by their draws."""

    name = "unlucky"
    at, attempts = 7, 1

    def loss(self, nets, batch, progress, rng):
        terms = super().loss(nets, batch, progress, rng)
        seeds = [derive_seed("train", 0, self.at)] + [
            derive_seed("train", 0, self.at, "attempt", k) for k in range(1, self.attempts)
        ]
        return {k: v * float("nan") if rng.seed in seeds else v for k, v in terms.items()}


@pytest.fixture
def unlucky(monkeypatch):
    monkeypatch.setitem(METHODS, "unlucky", Unlucky)
    return lambda results, *pairs: (
        "train", "-m", "unlucky", "-d", "modes1d", *sets(*TINY, EVERY, *pairs),
        "--results", results,
    )  # fmt: skip


def run_folder(results):
    return results / "default" / "runs" / "modes1d-unlucky-s0"


def test_rollback_continues_with_other_draws_and_resumes_to_equal_bytes(
    unlucky, tmp_path, monkeypatch
):
    ran = bench(*unlucky(tmp_path / "a"), "--on-nan", "rollback")
    assert ran.code == 0, ran.err
    what = "The loss term 'denoise' became nan at step 7"
    assert (
        f"{what}; modes1d-unlucky-s0 returns to its checkpoint of step 4 and continues "
        "with other random draws (1 of 3 times)."
    ) in ran.out
    folder = run_folder(tmp_path / "a")
    assert read_card(folder).provenance["rollbacks"] == f"{what}: back to step 4"
    assert steps_logged(folder) == list(range(12))
    assert sorted(contents(folder)) == ["log.jsonl", WEIGHTS, CARD]
    assert all(w.isfinite().all() for w in load_weights(folder / WEIGHTS).values())

    # Stopped after the rollback, before and after its next checkpoint, and resumed.
    for step in (6, 10):
        place = tmp_path / str(step)
        reached = []

        def second_time(reached=reached, step=step):
            reached.append(1)
            if len(reached) == (2 if step == 6 else 1):
                crash()

        at_step(monkeypatch, step, second_time)
        ran = bench(*unlucky(place), "--on-nan", "rollback")
        assert (ran.code, "the power went off" in ran.err) == (1, True)
        assert len(load_state(run_folder(place) / STATE).rollbacks) == 1
        at_step(monkeypatch, -1, crash)
        # The draws are the run's and not the option's.
        ran = bench(*unlucky(place))
        assert ran.code == 0, ran.err
        for name in (WEIGHTS, "log.jsonl"):
            assert contents(run_folder(place))[name] == contents(folder)[name]
        assert read_card(run_folder(place)).provenance["rollbacks"]


@pytest.mark.parametrize("stops", [(5,), (4, 5, 6), (1, 2, 5)])
def test_stop_before_a_failure_does_not_change_the_rollback(unlucky, tmp_path, monkeypatch, stops):
    assert bench(*unlucky(tmp_path / "a"), "--on-nan", "rollback").code == 0
    for step in stops:
        at_step(monkeypatch, step, lambda: signal.raise_signal(signal.SIGINT))
        assert bench(*unlucky(tmp_path / "b"), "--on-nan", "rollback").code == 130
        assert load_state(run_folder(tmp_path / "b") / STATE).step == step + 1
        assert (run_folder(tmp_path / "b") / PREVIOUS).exists()
    at_step(monkeypatch, -1, crash)
    ran = bench(*unlucky(tmp_path / "b"), "--on-nan", "rollback")
    assert ran.code == 0, ran.err
    assert "returns to its checkpoint of step 4" in ran.out
    for name in (WEIGHTS, "log.jsonl"):
        whole = contents(run_folder(tmp_path / "a"))[name]
        assert contents(run_folder(tmp_path / "b"))[name] == whole


def test_rollback_before_the_first_checkpoint_restarts(unlucky, tmp_path, fabric, monkeypatch):
    monkeypatch.setattr(Unlucky, "at", 2)
    ran = bench(*unlucky(tmp_path), "--on-nan", "rollback")
    assert ran.code == 0, ran.err
    folder = run_folder(tmp_path)
    assert read_card(folder).provenance["rollbacks"].endswith("back to step 0")
    assert steps_logged(folder) == list(range(12))
    # What a training gives whose draws are those of the first rollback from its start.
    monkeypatch.setattr(training, "derive_seed", lambda *parts: derive_seed(*parts, "attempt", 1))
    card = tiny_card("edm", "modes1d", EVERY)
    expected = train(card, find_dataset("modes1d"), tmp_path / "other", fabric=fabric)
    assert (folder / WEIGHTS).read_bytes() == expected.read_bytes()


def test_training_stops_after_three_rollbacks(unlucky, tmp_path, monkeypatch):
    monkeypatch.setattr(Unlucky, "attempts", 4)
    ran = bench(*unlucky(tmp_path), "--on-nan", "rollback")
    folder = run_folder(tmp_path)
    assert ran.code == 1
    assert ran.out.count("returns to its checkpoint of step 4") == 3
    assert ran.err.startswith(
        "Error: The loss term 'denoise' became nan at step 7, after 3 rollbacks; training stopped, "
        f"the last good checkpoint is {folder / STATE}."
    )
    assert load_state(folder / STATE).step == 4
    assert not (folder / LEASE).exists()
    # Its checkpoint remembers the rollbacks: the same draws give the same end.
    again = bench(*unlucky(tmp_path), "--on-nan", "rollback")
    assert (again.code, again.err) == (1, ran.err)
    monkeypatch.setattr(Unlucky, "attempts", 3)  # as if the cause were gone
    assert bench(*unlucky(tmp_path)).code == 0
    assert read_card(folder).provenance["rollbacks"].count("back to step 4") == 3


def test_rollback_option_changes_nothing_without_a_failure(tmp_path, fabric):
    card, data = tiny_card("igct", "modes1d", EVERY), find_dataset("modes1d")
    plain = train(card, data, tmp_path / "a", fabric=fabric).read_bytes()
    armed = train(card, data, tmp_path / "b", fabric=fabric, on_nan="rollback").read_bytes()
    assert armed == plain


def test_stop_is_the_default_and_names_rollback(unlucky, tmp_path):
    ran = bench(*unlucky(tmp_path))
    folder = run_folder(tmp_path)
    assert ran.code == 1
    assert ran.err == (
        "Error: The loss term 'denoise' became nan at step 7; training stopped, the last good "
        f"checkpoint is {folder / STATE}. A smaller --set train.lr=... is the usual cure; --on-nan "
        "rollback resumes from it with other random draws.\n"
    )
    ran = bench(*unlucky(tmp_path), "--on-nan", "retry")
    assert ran.code == 2
    assert "Unknown choice of --on-nan 'retry'. Available: rollback, stop." in ran.err
    assert bench(*unlucky(tmp_path), "--on-nan", "rollback").code == 0
