"""`bench train --log`: event files and wandb's files are read back and compared with log.jsonl."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb

from bench.data.find import find_dataset
from bench.sweep.generate import generate
from bench.system.errors import UserError
from bench.training import loop
from bench.training.card import make_method
from bench.training.checkpoint import load_into, load_weights
from bench.training.grids import SCALES, pictures
from bench.training.loggers import check_loggers
from bench.training.loop import Stopped, train
from bench.training.step import build_nets
from methods import Guidance
from tests.bench.helpers import bench, sets, tiny_card
from tests.bench.training.test_train import at_step, crash, interrupt

BOTH = ("tensorboard", "wandb")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for folder in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{folder}_DIR", str(tmp_path))


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The record: steps and values of each loss term in log.jsonl."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry["terms"].items():
            found.setdefault(name, []).append((entry["step"], value))
    return found


def in_tensorboard(folder: Path):
    """The scalars and the steps of pictures that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    scalars = {t: [(e.step, e.value) for e in events.Scalars(t)] for t in tags["scalars"]}
    return scalars, {t: [e.step for e in events.Images(t)] for t in tags["images"]}


def records(path: Path):
    """The records of a wandb file: the format of LevelDB's logs after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block that no header fits into
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def in_wandb(folder: Path):
    """The scalars and the steps of pictures in all local files, by wandb's run."""
    runs: dict[str, tuple[dict, dict]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        scalars, shown = runs.setdefault(path.stem.removeprefix("run-"), ({}, {}))
        for record in records(path):
            items = {
                i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item
            }
            for name, value in items.items():
                if name.startswith("samples/"):
                    shown.setdefault(name, []).append(items["_step"])
                elif not name.startswith("_"):
                    scalars.setdefault(name, []).append((items["_step"], value))
    return runs


def only(runs):
    ((found),) = runs.values()
    return found


@pytest.mark.parametrize(
    ("method", "data", "more"),
    [
        ("edm", "modes1d", ()),
        pytest.param(
            "igct", "digits", ("train.iterations=8", "net.dropout=0.5"), marks=pytest.mark.long
        ),
    ],
)
def test_loggers_have_the_log_and_leave_training_bit_for_bit_equal(
    method, data, more, tmp_path, fabric
):
    card = tiny_card(method, data, "train.checkpoint_every=5", *more)
    content, total = find_dataset(data), card.train.iterations
    plain = train(card, content, tmp_path / "plain", fabric=fabric).read_bytes()
    before = torch.get_rng_state()
    folder = tmp_path / "logged"
    assert train(card, content, folder, fabric=fabric, loggers=BOTH).read_bytes() == plain
    assert torch.equal(torch.get_rng_state(), before)
    assert (folder / "log.jsonl").read_bytes() == (tmp_path / "plain" / "log.jsonl").read_bytes()

    shown = sorted({*range(4, total - 1, 5), total - 1})
    expected = logged(folder), {f"samples/g={g:g}": shown for g in SCALES}
    assert [step for step, _ in next(iter(expected[0].values()))] == list(range(total))
    assert in_tensorboard(folder) == expected
    assert only(in_wandb(folder)) == expected


def test_resumed_training_continues_the_same_logs_without_repeated_steps(
    tmp_path, fabric, monkeypatch
):
    card = tiny_card("ct", "modes1d", "train.checkpoint_every=5", "train.iterations=20")
    data, folder = find_dataset("modes1d"), tmp_path / "run"
    at_step(monkeypatch, 4, interrupt)  # without a logger: it gets these steps later
    with pytest.raises(Stopped):
        train(card, data, folder, fabric=fabric)
    at_step(monkeypatch, 13, crash)  # steps 10 to 12 are repeated, of which some were logged
    monkeypatch.setattr("bench.training.log.FLUSH_EVERY", 1)
    with pytest.raises(RuntimeError, match="power"):
        train(card, data, folder, fabric=fabric, loggers=BOTH)
    assert logged(folder)[next(iter(logged(folder)))][-1][0] == 12
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(card, data, folder, fabric=fabric, loggers=BOTH)

    expected = logged(folder), {"samples/g=1": [9, 14, 19]}
    assert [step for step, _ in next(iter(expected[0].values()))] == list(range(20))
    assert in_tensorboard(folder) == expected
    assert only(in_wandb(folder)) == expected


@pytest.mark.long
def test_rollback_replaces_steps_in_tensorboard_and_starts_a_run_in_wandb(
    tmp_path, fabric, monkeypatch
):
    card = tiny_card("edm", "modes1d", "train.checkpoint_every=5", "train.iterations=20")
    data = find_dataset("modes1d")
    gradients, failed = loop.accumulate_gradients, []

    def failing(loss, split, method, rng, progress, **kwargs):
        means = gradients(loss, split, method, rng, progress, **kwargs)
        if progress.step == 13 and not failed:
            failed.append(progress.step)
            return {name: mean * float("nan") for name, mean in means.items()}
        return means

    monkeypatch.setattr(loop, "accumulate_gradients", failing)
    monkeypatch.setattr("bench.training.log.FLUSH_EVERY", 1)
    train(card, data, tmp_path, fabric=fabric, loggers=BOTH, on_nan="rollback")
    assert failed == [13]
    assert in_tensorboard(tmp_path)[0] == logged(tmp_path)
    first, second = in_wandb(tmp_path).values()
    both = [scalars["denoise"][-1][0] for scalars, _ in (first, second)]
    assert sorted(both) == [12, 19]
    whole = first if both[0] == 19 else second
    assert whole[0] == logged(tmp_path)


def test_pictures_are_the_first_samples_of_the_averaged_weights(tmp_path, fabric):
    card = tiny_card("edm", "digits")
    data = find_dataset("digits")
    weights = load_weights(train(card, data, tmp_path, fabric=fabric))
    method = make_method(card, data)
    nets, other = build_nets(method, 0), build_nets(method, 1)
    load_into(nets, weights, "the run")
    for scale, picture in pictures(method, other, weights, 3, batch=7):
        ((samples, _),) = generate(
            method, nets, Guidance(scale), 3, 0, 40, batch=40, device=torch.device("cpu")
        )
        tiles = picture.reshape(4, 8, 10, 8).transpose(0, 2, 1, 3).reshape(40, 8, 8)
        # Convolutions round by the size of the batch: by at most one of 256 levels.
        assert np.abs(tiles.astype(int) - samples[:, 0].numpy()).max() <= 1
        assert tiles.std() > 0


@pytest.mark.parametrize("data", ["modes1d", "modes2d"])
def test_vectors_are_drawn_and_samples_that_are_not_finite_left_out(data, fabric):
    card = tiny_card("edm", data)
    method = make_method(card, find_dataset(data))
    nets = build_nets(method, 0)
    weights = nets.state_dict()
    drawn = dict(pictures(method, nets, weights, 3, batch=500))
    assert set(drawn) == set(SCALES)
    for picture in drawn.values():
        assert (picture.shape, picture.dtype) == ((300, 400, 3), np.uint8)
        assert (picture != 255).any()
    broken = {k: torch.full_like(v, float("nan")) for k, v in weights.items()}
    assert list(pictures(method, nets, broken, 3, batch=500)) == []


def test_option_names_the_loggers_and_the_command_that_shows_them(tmp_path):
    settings = sets("train.iterations=6", "train.batch=8", "net.width=8", "net.blocks=1")
    words = ("-m", "ct", "-d", "modes1d", *settings, "--results", tmp_path)
    ran = bench("train", *words, "--log", "tensorboard")
    assert ran.code == 0, ran.err
    runs = tmp_path / "default" / "runs"
    assert f"tensorboard --logdir {runs}" in ran.out
    longer = ("--run", "modes1d-ct-s0", "--iterations", "9", "--results", tmp_path)
    assert bench("train", *longer, "--log", "tensorboard").code == 0
    folder = runs / "modes1d-ct-s0"
    assert in_tensorboard(folder)[0] == logged(folder)
    assert len(next(iter(logged(folder).values()))) == 9


@pytest.mark.parametrize("name", BOTH)
def test_missing_package_is_named_with_the_command_that_installs_it(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    ran = bench("train", "-m", "edm", "-d", "modes1d", "--log", name, "--results", tmp_path)
    assert ran.code == 2
    assert ran.err.strip().endswith(
        f"--log {name} needs the package {name}: pip install 'guidance-bench[{name}]'."
    )
    assert not list(tmp_path.rglob("*.jsonl"))


def test_unknown_logger_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'tensorbord'.*Did you mean 'tensorboard'.*wandb"):
        check_loggers(["tensorbord"])
    assert check_loggers(["wandb", "tensorboard", "wandb"]) == ("wandb", "tensorboard")


def test_wandb_that_does_not_start_says_what_to_type(tmp_path, fabric, monkeypatch):
    def init(**settings):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    card = tiny_card("ct", "modes1d")
    with pytest.raises(UserError, match=r"No API key.*wandb login, or set WANDB_MODE=offline"):
        train(card, find_dataset("modes1d"), tmp_path, fabric=fabric, loggers=["wandb"])
