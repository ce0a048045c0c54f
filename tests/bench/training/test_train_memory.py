"""A training whose batch finds no room goes on in slices of it."""

import json

import pytest
import torch

from bench.training import step as training_step
from bench.training.card import WEIGHTS, read_card
from bench.training.checkpoint import load_weights
from tests.bench.helpers import TINY, bench, sets

TRAIN = ("train", "-m", "igct", "-d", "modes1d", "--init-from", "none", "--device", "cpu")
RUN = "default/runs/modes1d-igct-s0"


def no_room_for_more_than(rows, monkeypatch):
    """Backward passes of larger batches run out of memory, after they have left gradients."""
    real = training_step.Loss.forward

    def forward(self, x0, labels, decoupled, step, total, rng):
        terms = real(self, x0, labels, decoupled, step, total, rng)
        if len(x0) > rows and step > 2:
            torch.stack([t.mean() for t in terms.values()]).sum().backward()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return terms

    monkeypatch.setattr(training_step.Loss, "forward", forward)


def test_slices_are_halved_and_give_the_same_gradients(tmp_path, monkeypatch):
    command = (*TRAIN, *sets(*TINY), "--results")
    assert bench(*command, tmp_path / "whole").code == 0
    no_room_for_more_than(3, monkeypatch)
    ran = bench(*command, tmp_path / "parts")
    assert ran.code == 0, ran.err
    for size in (4, 2):
        assert (
            "modes1d-igct-s0, step 3: out of memory; continuing with batches of "
            f"{size}: the gradient is that of the whole batch, up to rounding and dropout masks."
        ) in ran.out
    assert ran.out.count("out of memory; continuing") == 2
    card = read_card(tmp_path / "parts" / RUN)
    assert card.provenance["smaller_micro_batch"] == "2"
    assert "smaller_micro_batch" not in read_card(tmp_path / "whole" / RUN).provenance
    whole, parts = (load_weights(tmp_path / p / RUN / WEIGHTS) for p in ("whole", "parts"))
    for name, weights in whole.items():
        # The same draws, summed in slices: rounding of gradients in 12 steps of lr 2e-3.
        torch.testing.assert_close(parts[name], weights, rtol=0, atol=1e-5)
    assert any(not torch.equal(parts[name], weights) for name, weights in whole.items())
    losses = [
        [json.loads(line)["terms"] for line in (tmp_path / p / RUN / "log.jsonl").open()]
        for p in ("whole", "parts")
    ]
    assert len(losses[1]) == 12
    for one, other in zip(*losses, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_out_of_memory_at_one_image_is_a_one_line_error(tmp_path, monkeypatch):
    no_room_for_more_than(0, monkeypatch)
    ran = bench(*TRAIN, *sets(*TINY), "--results", tmp_path)
    assert ran.code == 1
    assert ran.out.count("out of memory; continuing") == 3
    (line,) = ran.err.splitlines()
    assert "Out of memory." in line
    assert "micro_batch" in line
