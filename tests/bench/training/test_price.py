"""What a dry run says, without data and within memory."""

import signal

import pytest
import torch

from bench.data.find import find_dataset
from bench.data.stand_in import RandomImages
from bench.sweep import trainings
from bench.system.progress import Bar
from bench.training import loop, price
from bench.training.card import make_card
from bench.training.price import NoRoom, Rate, parameters, train_rate
from bench.training.step import learning_rate
from methods import METHODS, DataSpec, TrainSettings
from tests.bench.helpers import TINY, TINY_IMAGES, bench, sets

CPU = torch.device("cpu")
SHRUNKEN = sets("net.channels=8", "net.channel_mult=[1,1,1,1]", "net.num_blocks=1")


@pytest.mark.parametrize(("preset", "size"), [("cifar10", 32), ("imagenet64", 64)])
@pytest.mark.parametrize("method", ["igct", "guided-cd"])
def test_random_images_replace_missing_data(method, preset, size, tmp_path, monkeypatch):
    sizes = []
    draw = price.draw_batch

    def watch(split, *rest):
        sizes.append(tuple(split.samples.shape[1:]))
        return draw(split, *rest)

    monkeypatch.setattr(price, "draw_batch", watch)
    monkeypatch.setattr(price, "SMALL", 0)  # few rows, although the network is small
    # The teacher is measured at its own size: not here.
    found = METHODS["edm"].presets[preset]
    net = found.config.net.model_copy(
        update={
            "channels": 8,
            "channel_mult": (1, 1, 1, 1),
            "num_blocks": 1,
            "attn_resolutions": (),
        }
    )
    config = found.config.model_copy(update={"net": net})
    monkeypatch.setitem(METHODS["edm"].presets, preset, found.model_copy(update={"config": config}))
    ran = bench(
        "train", "-m", method, "--preset", preset, *SHRUNKEN, "--set", "net.attn_resolutions=[]",
        "--dry-run", "--results", tmp_path / "r",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    train = METHODS[method].presets[preset].train
    assert f" parameters, {train.iterations * train.batch:,} images, about " in ran.out
    assert "rows of random images per forward." in ran.out
    name = METHODS[method].presets[preset].dataset
    assert f"needed for training: bench data prepare SOURCE --dataset {name}." in ran.out
    assert " images per second in 32-true, from 4 rows" in ran.out
    assert set(sizes) == {(3, size, size)}
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("name", "count"), [("cifar10", 112_862_470), ("imagenet64", 364_810_758)])
def test_dry_run_counts_parameters_when_memory_is_short(name, count, tmp_path, monkeypatch):
    monkeypatch.setattr(price, "available_bytes", lambda device: 2**30)
    ran = bench("train", "-m", "igct", "--preset", name, "--dry-run", "--results", tmp_path / "r")
    assert ran.code == 0, ran.err
    assert f"{count:,} parameters, " in ran.out
    assert "its time could not be measured: the weights, their gradients" in ran.out
    assert "and cpu has 1.0 GiB left." in ran.out


def test_teacher_counts_towards_memory(monkeypatch):
    data = find_dataset("digits")
    card = make_card("guided-cd", data=data)
    edm = parameters(make_card("edm", data=data), data)
    needed = int(4 * (4 * parameters(card, data) + edm) * 1.3)
    monkeypatch.setattr(price, "available_bytes", lambda device: needed - 1)
    with pytest.raises(NoRoom):
        train_rate(card, data, CPU)


def test_rate_gives_seconds_and_images_per_second():
    settings = TrainSettings(iterations=10, batch=8, lr=1)
    rate = Rate(rows=2, per_image=0.5, per_step=1.0)
    assert rate.seconds(settings) == 10 * (8 * 0.5 + 1)
    assert rate.images_per_second(settings) == 80 / 50


def test_small_networks_are_measured_on_a_batch_large_ones_on_few_rows():
    settings = TrainSettings(iterations=1, batch=1024, lr=1)
    cuda = torch.device("cuda")
    assert price._rows(10**6, settings, CPU) == 1024
    assert price._rows(7 * 10**6, settings, CPU) == 4
    assert price._rows(365 * 10**6, settings, CPU) == 1
    assert price._rows(365 * 10**6, settings, cuda) == 16
    micro = settings.model_copy(update={"micro_batch": 2})
    assert price._rows(10**6, micro, CPU) == price._rows(7 * 10**6, micro, cuda) == 2


def test_existing_data_are_used(tmp_path):
    ran = bench(
        "train", "-m", "edm", *sets(*TINY_IMAGES), "--precision", "bf16-mixed", "--dry-run",
        "--results", tmp_path / "r",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert " images per second in bf16-mixed, from 4 rows of its own data per forward." in ran.out


def test_unknown_data_set_is_not_replaced(tmp_path):
    for arguments in (("-d", "cifar11"), ("-d", "cifar11", "--preset", "cifar10")):
        ran = bench("train", "-m", "edm", *arguments, "--dry-run", "--results", tmp_path / "r")
        assert ran.code == 2
        assert "'cifar11'" in ran.err
    ran = bench("train", "-m", "edm", "--precision", "fp16", "--dry-run")
    assert ran.code == 2
    assert "Unknown precision 'fp16'" in ran.err


def test_random_images_have_the_given_shape():
    data = RandomImages(DataSpec("cifar10", (3, 32, 32), 10))
    assert tuple(data.train.samples.shape) == (64, 3, 32, 32)
    assert data.train.samples.dtype == torch.uint8
    assert 0 <= int(data.train.labels.min()) <= int(data.train.labels.max()) < 10
    assert data.train.hash == RandomImages(data.spec).train.hash


def test_method_without_training_is_not_measured():
    with pytest.raises(ValueError, match="nothing to train"):
        train_rate(make_card("oracle", data=find_dataset("modes1d")), find_dataset("modes1d"), CPU)


@pytest.mark.parametrize(
    ("workers", "trained", "total"),
    [
        (1, (), "5 min with 1 worker."),
        (2, (), "4 min with 2 workers."),  # igct and ct after edm
        (9, ("edm",), "3 min with 2 workers."),
        (2, ("edm", "igct", "ct"), "0 s with 1 worker; 2 are trained already."),
    ],
)
def test_dry_run_adds_the_times_of_runs_side_by_side(
    workers, trained, total, tmp_path, monkeypatch
):
    minutes = {"edm": 1, "igct": 3, "ct": 1}
    monkeypatch.setattr(
        trainings, "describe", lambda card, *_: (f"{card.name}.", 60 * minutes[card.method])
    )
    for method in trained:
        folder = tmp_path / f"default/runs/digits-{method}-s0"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    methods = ("-m", "ct", "-m", "igct")
    ran = bench("train", *methods, "--dry-run", "--workers", str(workers), "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert ("digits-edm-s0, which is trained first" in ran.out) == ("edm" not in trained)
    assert f"All runs: about {total}" in ran.out


def test_dry_run_describes_one_seed_and_names_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "describe", lambda card, *_: (f"{card.name}.", 60.0))
    ran = bench("train", "--suite", "modes1d-seeds", "--dry-run", "--results", tmp_path / "r")
    assert ran.code == 0, ran.err
    assert "modes1d-oracle-s0: nothing to train." in ran.out
    assert ran.out.count("modes1d-ct-s0.") == 1
    assert "modes1d-ct-s2: as modes1d-ct-s0, with seed 2." in ran.out


def test_time_left_of_several_runs_counts_their_cost_and_agrees_with_the_dry_run(
    tmp_path, monkeypatch
):
    # A step of ct takes three times as long as one of edm, which says nothing about its images.
    per_step = {"edm": 10.0, "ct": 30.0}
    monkeypatch.setattr(trainings, "train_rate", lambda card, *_: Rate(8, 0, per_step[card.method]))
    monkeypatch.setattr(
        trainings, "describe", lambda card, *_: (card.name, 12 * per_step[card.method])
    )
    updates = []
    update = Bar.update

    def noted(self, done, message="", share=None):
        if self.title == "train":
            updates.append((message, done, share))
        update(self, done, message, share)

    monkeypatch.setattr(Bar, "update", noted)
    words = ("train", "-m", "edm", "-m", "ct", "-d", "modes1d", *sets(*TINY), "--results", tmp_path)
    every = sets("train.checkpoint_every=3")
    assert "All runs: about 8 min with 1 worker." in bench(*words, *every, "--dry-run").out

    def stop_at(step):
        def rate(settings, at):
            if at == step:
                signal.raise_signal(signal.SIGINT)
            return learning_rate(settings, at)

        monkeypatch.setattr(loop, "learning_rate", rate)

    stop_at(5)  # six steps of the first run are done then, of 12 and 12
    ran = bench(*words, *every)
    assert ran.code == 130, ran.err
    first = updates[0][0].removeprefix("modes1d-").removesuffix("-s0")
    cost = sum(per_step.values())
    assert updates[5][1:] == (6, pytest.approx(6 / 12 * per_step[first] / cost))
    updates.clear()
    stop_at(-1)
    left = 12 * cost - 6 * per_step[first]
    shown = "5 min" if first == "ct" else "7 min"
    assert f"All runs: about {shown} with 1 worker." in bench(*words, *every, "--dry-run").out
    assert bench(*words, *every).code == 0
    assert updates[0][1:] == (1, pytest.approx(per_step[first] / left))
    assert updates[-1][1:] == (18, pytest.approx(1.0))
    again = bench(*words, *every, "--dry-run")
    assert "All runs: about 0 s with 1 worker; 2 are trained already." in again.out
