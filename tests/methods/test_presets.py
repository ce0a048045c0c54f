"""Presets with published settings, and the layouts of official checkpoints."""

import math

import pytest
import torch

from methods import METHODS, TrainSettings
from methods.igct_config import IGCTConfig
from methods.settings import CIFAR10, IMAGENET64
from tests.methods.nets.golden import layouts

SPECS = {"cifar10": CIFAR10, "imagenet64": IMAGENET64}
FULL = [
    *((method, name) for method in ("ct", "edm", "guided-cd", "igct") for name in SPECS),
    *((method, "cifar10") for method in ("scd", "sct", "tcm")),
    ("ct", "cifar10-ict"),
]
FULL += [(method, "cifar10") for method in ("imm", "alpha-flow", "meanflow")]
FULL += [("meanflow", "cifar10-interval")]
SMALL = ("ct", "edm", "guided-cd", "igct")


def build(method, preset, **net):
    """The networks of a preset on the meta device, with changed network settings."""
    found = METHODS[method].presets[preset]
    config = found.config.model_copy(update={"net": found.config.net.model_copy(update=net)})
    with torch.device("meta"):
        return METHODS[method](config, SPECS[found.dataset]).build()


OFFICIAL = {
    "edm-cifar10-32x32-cond-vp": lambda: build("edm", "cifar10", arch="ddpmpp", augment_dim=9),
    "edm-cifar10-32x32-cond-ve": lambda: build("edm", "cifar10", augment_dim=9),
    "edm-imagenet-64x64-cond-adm": lambda: build("edm", "imagenet64"),
    "igct-cifar10": lambda: build("igct", "cifar10"),
    "igct-imagenet64": lambda: build("igct", "imagenet64"),
    "guided-cd-cifar10": lambda: build("guided-cd", "cifar10"),
}


@pytest.mark.parametrize("key", sorted(layouts()))
def test_presets_build_the_official_checkpoints(key):
    module, layout = OFFICIAL[key.split()[0]](), layouts()[key]
    assert {k: list(v.shape) for k, v in module.state_dict().items()} == layout["state"]
    assert sum(p.numel() for p in module.parameters()) == layout["params"]


@pytest.mark.parametrize(("name", "count"), [("cifar10", 112_862_470), ("imagenet64", 364_810_758)])
def test_parameter_count_of_igct(name, count):
    assert sum(p.numel() for p in build("igct", name).parameters()) == count


@pytest.mark.parametrize("method", SMALL)
def test_small_networks_are_small_with_widths_divisible_by_32(method):
    for net in build(method, "cifar10-small").children():
        assert 5e6 < sum(p.numel() for p in net.parameters()) < 15e6
    config = METHODS[method].presets["cifar10-small"].config.net
    assert config.channels % 32 == 0


@pytest.mark.parametrize(("method", "name"), [*FULL, *((m, "cifar10-small") for m in SMALL)])
def test_presets_fit_their_images_and_load_from_json(method, name):
    preset = METHODS[method].presets[name]
    spec = SPECS[preset.dataset]
    assert (preset.shape, preset.num_classes) == (spec.shape, spec.num_classes)
    assert preset.fits(spec)
    config_type = METHODS[method].config_type
    assert config_type.model_validate_json(preset.config.model_dump_json()) == preset.config
    assert TrainSettings.model_validate_json(preset.train.model_dump_json()) == preset.train
    assert preset.init_from in (None, "edm", "ct")


@pytest.mark.parametrize(
    ("method", "name", "images"),
    [
        ("igct", "cifar10", 368.64e6),
        ("igct", "imagenet64", 266.24e6),
        ("guided-cd", "cifar10", 368.64e6),
        ("guided-cd", "imagenet64", 266.24e6),
        ("ct", "cifar10-ict", 409.6e6),
        ("scd", "cifar10", 256e6),
        ("sct", "cifar10", 179.2e6),
        ("tcm", "cifar10", 307.2e6),
        ("edm", "cifar10", 200e6),
        ("edm", "imagenet64", 2500e6),
    ],
)
def test_number_of_images_seen(method, name, images):
    train = METHODS[method].presets[name].train
    # The number of batches is whole.
    assert train.iterations * train.batch == pytest.approx(images, abs=train.batch)


@pytest.mark.parametrize(
    ("name", "last", "steps"), [("cifar10", 8, 40_000), ("imagenet64", 6, 20_000)]
)
def test_igct_has_the_settings_of_its_authors(name, last, steps):
    preset = METHODS["igct"].presets[name]
    config, train = preset.config, preset.train
    assert (config.first_stage, config.last_stage) == (0, last)
    # Stages have 40,000 steps; the last one has the remaining steps.
    assert train.iterations == last * config.stage_iterations + steps
    assert (train.batch, train.lr, train.optimizer) == (1024, 1e-4, "radam")
    assert (train.betas, train.eps, train.warmup, train.decay_from) == ((0.9, 0.999), 1e-8, 0, 1)
    assert (train.ema, train.ema_ramp) == (0.9999, False)
    assert config.net.dropout == {"cifar10": 0.2, "imagenet64": 0.3}[name]
    assert config.c_h == {"cifar10": 0.03, "imagenet64": 0.06}[name]
    assert preset.init_from is None
    weights = [config.reconstruction_at(k) for k in (0, 179_999, 180_000, 199_999, 200_000)]
    grown = name == "imagenet64"
    assert weights == ([2e-5, 2e-5, 4e-5, 4e-5, 6e-5] if grown else [2e-5] * 5)


def test_warmup_and_ema_of_edm_in_images():
    for name, half_life in (("cifar10", 500e3), ("imagenet64", 50e6)):
        train = METHODS["edm"].presets[name].train
        assert train.warmup * train.batch == pytest.approx(10e6, abs=train.batch)
        # The EMA is given to five digits.
        images = train.batch * math.log(0.5) / math.log(train.ema)
        assert images == pytest.approx(half_life, rel=0.02)


@pytest.mark.parametrize("schedule", [[[10, 1e-5], [5, 2e-5]], [[10, -1e-5]], [[-1, 1e-5]]])
def test_invalid_schedules_are_refused(schedule):
    preset = METHODS["igct"].presets["cifar10"]
    tree = preset.config.model_dump() | {"reconstruction_schedule": schedule}
    with pytest.raises(ValueError, match="reconstruction_schedule"):
        IGCTConfig.model_validate(tree)


@pytest.mark.parametrize("method", ["ct", "guided-cd", "scd", "sct", "tcm"])
def test_networks_that_start_from_edm_record_its_noise_features(method):
    found = METHODS[method].presets["cifar10"].config.net
    assert found.fourier_scale == METHODS["edm"].presets["cifar10"].config.net.fourier_scale == 16
    for scratch, preset in (("igct", "cifar10"), ("ct", "cifar10-ict")):
        assert METHODS[scratch].presets[preset].config.net.fourier_scale == 0.02


@pytest.mark.parametrize(
    ("method", "between"), [("ct", False), ("igct", True), ("guided-cd", True)]
)
def test_samples_are_clipped_between_steps_where_the_source_does_it(method, between):
    for preset in METHODS[method].presets.values():
        assert preset.config.clamp_between is between
