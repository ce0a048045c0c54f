"""`bench train --run NAME --iterations N`: a finished run is trained further."""

from __future__ import annotations

import shutil

import pytest
import torch

from bench.training import further
from bench.training.card import read_card, write_card
from bench.training.checkpoint import load_weights
from bench.training.step import learning_rate
from tests.bench.helpers import TINY, bench, sets

NAME = "modes1d-edm-s0"
SETTINGS = sets(*TINY, "train.iterations=30", "train.decay_from=0.5", "train.final_lr=0.1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("further") / "results"
    ran = bench("train", "-m", "edm", "-d", "modes1d", *SETTINGS, "--results", results)
    assert ran.code == 0, ran.err
    return results


@pytest.fixture
def results(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "results")


def go_on(results, *words):
    return bench("train", "--run", NAME, *words, "--results", results)


def run_of(results):
    return results / "default" / "runs" / NAME


def files(results):
    return {path.name for path in run_of(results).iterdir() if not path.name.startswith(".")}


def test_run_continues_past_its_end(results, monkeypatch):
    before = load_weights(run_of(results) / "model.safetensors")
    rates = []

    def noted(settings, step):
        rates.append((step, learning_rate(settings, step)))
        return learning_rate(settings, step)

    monkeypatch.setattr("bench.training.loop.learning_rate", noted)
    ran = go_on(results, "--iterations", "50")
    assert ran.code == 0, ran.err
    card = read_card(run_of(results))
    assert card.train.iterations == 50
    assert card.provenance["iterations_before"] == "30"
    # The last 20 of 50 steps, with the rate of these steps: 1 at step 25, 0.1 at step 49.
    assert [step for step, _ in rates] == list(range(30, 50))
    expected = [card.train.lr * (1 - 0.9 * (step - 25) / 24) for step in range(30, 50)]
    assert [rate for _, rate in rates] == pytest.approx(expected, rel=1e-12)
    kept = load_weights(run_of(results) / "model.30.safetensors")
    assert all(torch.equal(kept[name], before[name]) for name in before)
    after = load_weights(run_of(results) / "model.safetensors")
    assert not all(torch.equal(after[name], before[name]) for name in before)
    assert files(results) == {
        *("run.json", "log.jsonl", "model.safetensors", "model.30.safetensors"),
    }


def test_continuing_twice_and_then_nothing_to_do(results):
    assert go_on(results, "--iterations", "40").code == 0
    assert go_on(results, "--iterations", "50").code == 0
    assert read_card(run_of(results)).provenance["iterations_before"] == "30, 40"
    again = go_on(results, "--iterations", "50")
    assert (again.code, "trained already" in again.out) == (0, True)
    assert {"model.30.safetensors", "model.40.safetensors"} <= files(results)


@pytest.mark.parametrize("at", ["save_state", "rename", "write_card", "train"])
def test_interruption_at_any_moment_loses_nothing(results, monkeypatch, at):
    whole = shutil.copytree(results, results.with_name("whole"))
    assert go_on(whole, "--iterations", "50").code == 0

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "rename":
            patch.setattr(further.Path, "rename", interrupt)
        else:
            patch.setattr(further, at, interrupt)
        assert go_on(results, "--iterations", "50").code == 130
    ran = go_on(results, "--iterations", "50")
    assert ran.code == 0, ran.err
    found, expected = (load_weights(run_of(r) / "model.safetensors") for r in (results, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert files(results) == files(whole)


def test_unfinished_run_continues_from_its_checkpoint(results, tmp_path, monkeypatch):
    """A run that is stopped at step 20 of 30 and goes on to 50 equals one of 50 from there."""
    fresh = tmp_path / "fresh"
    settings = sets(*TINY, "train.iterations=30", "train.checkpoint_every=10")
    stop_at = 20

    def stop(self, step):
        real(self, step)
        if step == stop_at:
            raise KeyboardInterrupt

    real = further.train.__globals__["_Training"]._checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(further.train.__globals__["_Training"], "_checkpoint", stop)
        words = ("train", "-m", "edm", "-d", "modes1d", *settings, "--results", fresh)
        assert bench(*words).code == 130
    other = shutil.copytree(fresh, tmp_path / "other")
    assert go_on(fresh, "--iterations", "50").code == 0
    # By hand: the card of 50 iterations over the same checkpoint.
    card = read_card(run_of(other))
    longer = card.train.model_copy(update={"iterations": 50})
    write_card(run_of(other), card.model_copy(update={"train": longer}))
    assert go_on(other).code == 0
    found, expected = (load_weights(run_of(r) / "model.safetensors") for r in (fresh, other))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "model.30.safetensors" not in files(fresh)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "x", "--iterations", "50"], "Unknown run 'x'"),
        (["--run", NAME, "--iterations", "20"], "has 30 iterations already"),
        (["--run", NAME, "--iterations", "50", "-m", "edm"], "drop --method"),
        (["--run", NAME, "--iterations", "50", "--set", "a=1"], "drop --set"),
        (["--iterations", "50", "-m", "edm"], "--set train.iterations=50"),
    ],
)
def test_wrong_requests_change_nothing(results, words, said):
    before = {path: path.read_bytes() for path in run_of(results).iterdir() if path.is_file()}
    ran = bench("train", *words, "--results", results)
    assert ran.code == 2
    assert said in ran.err
    assert before == {p: p.read_bytes() for p in run_of(results).iterdir() if p.is_file()}


def test_dry_run_writes_nothing(results):
    before = {path: path.read_bytes() for path in run_of(results).iterdir() if path.is_file()}
    ran = go_on(results, "--iterations", "50", "--dry-run")
    assert ran.code == 0, ran.err
    assert before == {p: p.read_bytes() for p in run_of(results).iterdir() if p.is_file()}
