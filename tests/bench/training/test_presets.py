"""Presets that fit by shape, and "auto" for all other shapes."""

import itertools
from functools import cached_property

import numpy as np
import pytest
import torch

from bench.data import DATASETS, Dataset, Split
from bench.system.errors import UserError
from bench.training.card import make_card
from bench.training.presets import SCHEDULES, described_choice, find_preset
from methods import METHODS, DataSpec
from methods.nets.config import UNetConfig
from methods.nets.scaled import scaled_unet
from tests.bench.helpers import bench, sets
from tests.long import mostly_long

TRAINED = sorted(
    name for name, cls in METHODS.items()
    if cls.trains and cls.presets and cls.__module__.startswith("methods.")
)  # fmt: skip
SHAPES = {
    "grey8": (1, 8, 8),
    "grey32": (1, 32, 32),
    "rgb16": (3, 16, 16),
    "rgb48": (3, 48, 48),
    "latents8": (4, 8, 8),
    "points2": (2,),
    "points5": (5,),
}
CASES = list(itertools.product(TRAINED, SHAPES, (1, 3, 10)))
SHORT = {
    ("edm", "grey32", 3),
    ("mg", "grey8", 10),
    ("igct", "latents8", 3),
    ("meanflow", "points5", 1),
}
QUICK = ("train.iterations=2", "train.batch=2", "train.checkpoint_every=1")


def dataset(shape, classes, title="mine"):
    """A data set class of random samples."""

    class Mine(Dataset):
        name, summary, extractors, default_samples = title, "random", ("identity",), 8
        class_names = tuple(f"class {k}" for k in range(classes))
        spec = property(lambda self: DataSpec(self.name, shape, classes))

        @cached_property
        def train(self):
            return self.draw(1)

        @cached_property
        def reference(self):
            return self.draw(2)

        def draw(self, seed):
            rng = np.random.default_rng(seed)
            images = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
            points = rng.normal(size=(40, *shape)).astype(np.float32)
            samples = images if len(shape) == 3 else points
            return Split(torch.from_numpy(samples), torch.arange(40) % classes)

    return Mine


@pytest.mark.parametrize(
    "case", mostly_long(CASES, SHORT), ids=lambda case: "-".join(map(str, case))
)
def test_methods_train_resume_and_sample_on_any_shape(case, tmp_path, monkeypatch):
    method, shape, classes = case
    own = dataset(SHAPES[shape], classes)
    monkeypatch.setitem(DATASETS, own.name, own)
    results, teacher = ("--results", tmp_path), METHODS[method].wants_teacher
    # The depth of the network, and its width where that is quick.
    narrow = ("net.channels=16",) if SHAPES[shape][-1] >= 32 else ()
    for name in (method,) if teacher is None else (teacher, method):
        preset, found = find_preset(METHODS[name], own().spec, None)
        source = found.init_from not in (None, METHODS[name].wants_teacher)
        start = ("--init-from", "none") if source else ()
        ran = bench("train", "-m", name, "-d", "mine", *sets(*QUICK, *narrow), *results, *start)
        assert ran.code == 0, ran.err
        assert f"{name} on mine: preset {preset}" in ran.out
    run = f"mine-{preset}-{method}-s0"
    again = bench("train", "--run", run, "--iterations", "3", *results)
    assert again.code == 0, again.err
    ran = bench("sample", "--run", run, "-n", "2", "--steps", "1", "-o", tmp_path / "x.npz",
                *results)  # fmt: skip
    assert ran.code == 0, ran.err
    samples = np.load(tmp_path / "x.npz")["arr_0"]
    first, *rest = SHAPES[shape]
    assert samples.shape == (2, *rest, first)  # channels last


@pytest.mark.parametrize(
    ("method", "shape", "preset", "base"),
    [
        ("edm", (1, 8, 8), "digits", None),
        ("edm", (3, 8, 8), "auto", "digits"),
        ("igct", (3, 16, 16), "cifar16", None),
        ("edm", (3, 32, 32), "cifar10-small", None),
        ("mg", (3, 32, 32), "cifar10-small", None),
        ("mg-ct", (3, 32, 32), "auto", "cifar16"),
        ("edm", (1, 32, 32), "auto", "cifar10-small"),
        ("guided-cd", (3, 64, 64), "auto", "cifar10-small"),  # not the 296M of imagenet64
        ("igct", (1,), "modes1d", None),
        ("igct", (2,), "modes2d", None),
        ("meanflow", (5,), "auto", "modes2d"),
    ],
)
def test_default_fits_by_shape_or_is_scaled_from_the_nearest(method, shape, preset, base):
    cls, spec = METHODS[method], DataSpec("mine", shape, 7)
    name, found = find_preset(cls, spec, None)
    assert name == preset
    told = described_choice(method, spec, None)
    assert told.startswith(f"mine: preset {preset}, ")
    if base is None:
        assert found == cls.presets[preset]
        return
    assert f"the settings of {base} with a network for " in told
    own = cls.presets[base]
    assert (found.steps, found.init_from) == (own.steps, own.init_from)
    if (method, shape) != ("mg-ct", (3, 32, 32)):
        assert found.train == own.train
    assert found.config.model_copy(update={"net": own.config.net}) == own.config
    if isinstance(own.config.net, UNetConfig):
        assert found.config.net == scaled_unet(shape, own.config.net.dropout)
    else:
        assert found.config.net == own.config.net


@pytest.mark.parametrize(
    ("method", "shape", "iterations", "batch", "lr"),
    [
        ("sct", (3, 8, 8), 400, 64, 1e-3),
        ("sct", (3, 16, 16), 2000, 64, 1e-3),
        ("imm", (3, 32, 32), 2800, 512, 3e-4),
        ("tcm", (1, 64, 64), 2800, 512, 1.5e-4),
        ("mg-ct", (3, 32, 32), 2100, 512, 3e-4),  # from its preset of 16 pixels
        ("guided-cd", (3, 64, 64), 2500, 512, 3e-4),  # its own at 32 pixels
    ],
)
def test_schedule_grows_with_the_images_and_is_announced(method, shape, iterations, batch, lr):
    spec = DataSpec("mine", shape, 7)
    train = find_preset(METHODS[method], spec, "auto")[1].train
    assert (train.iterations, train.batch, train.lr) == (iterations, batch, lr)
    told = f"; trained for {iterations:,} steps of {batch} images."
    scaled = iterations not in (400, 2500)
    assert described_choice(method, spec, "auto").endswith(told) == scaled


def test_schedules_are_those_of_the_methods_with_presets_of_all_sizes():
    """The multiples lie between those of the presets that were chosen by training."""
    sizes = {16: "cifar16", 32: "cifar10-small"}
    full = [m for m in METHODS.values() if {"digits", *sizes.values()} <= m.presets.keys()]
    assert len(full) >= 4
    for side, name in sizes.items():
        found = [
            (new.iterations / old.iterations, new.batch // old.batch, new.lr / old.lr)
            for old, new in ((m.presets["digits"].train, m.presets[name].train) for m in full)
        ]
        iterations, batches, lrs = map(sorted, zip(*found, strict=True))
        length, batch, lr = SCHEDULES[side]
        assert iterations[0] < length < iterations[-1]
        assert {batch} == set(batches)
        assert lrs[0] * 0.999 <= lr <= lrs[-1]


def test_own_and_named_presets_are_not_announced():
    spec = DATASETS["digits"]().spec
    assert described_choice("edm", spec, None) == described_choice("edm", spec, "digits-demo") == ""
    assert described_choice("edm", spec, "auto").startswith("digits: preset auto, the settings of ")


def test_scaled_presets_of_teacher_and_student_have_one_network():
    for side in (8, 16, 24, 32, 48, 64):
        spec = DataSpec("mine", (3, side, side), 2)
        student = find_preset(METHODS["mg-ct"], spec, None)[1].config.net
        teacher = find_preset(METHODS["edm"], spec, None)[1].config.net
        same = student.model_copy(update={"dropout": teacher.dropout})
        assert same == teacher


def test_auto_by_name_trains_beside_the_preset_of_the_data(tmp_path):
    ran = bench("train", "-m", "edm", "-d", "digits", "--preset", "auto", "--dry-run",
                "--results", tmp_path)  # fmt: skip
    assert ran.code == 0, ran.err
    assert (
        "edm on digits: preset auto, the settings of digits with a network for images of "
        "1x8x8: 32 channels x (1, 2), blocks per level: 1, attention at 4x4." in ran.out
    )
    card = make_card("edm", data=DATASETS["digits"](), preset="auto")
    assert card.name == "digits-auto-edm-s0"
    # 750,243 of TINY, with 9 x 32 weights less for each of two channels at both ends, 2 biases.
    assert "digits-auto-edm-s0: 749,089 parameters" in ran.out


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 20, 30), "images must be square, got 20x30 pixels: prepare them with --size 20."),
        ((1, 75, 75), "75 pixels per side cannot be halved to 32 or fewer: prepare the images "
         "with --size 76."),
    ],
)  # fmt: skip
def test_shapes_without_a_network_are_refused_with_the_reason(shape, said, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", dataset(shape, 2))
    ran = bench("train", "-m", "igct", "-d", "mine", "--results", tmp_path)
    assert ran.code == 2
    assert ran.err.strip().endswith(
        f"'igct' has no preset for the data set 'mine', and 'auto' cannot make one: {said}"
    )


def test_method_without_a_scalable_network_lists_its_data_sets():
    with pytest.raises(UserError, match="it has presets for: modes1d, modes2d"):
        find_preset(METHODS["oracle"], DataSpec("mine", (3, 8, 8), 2), "auto")
