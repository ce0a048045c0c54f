import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from methods.nets.config import MLPConfig, NetConfig, UNetConfig, build_net
from methods.nets.mlp import MLP
from methods.nets.unet import UNet
from methods.spec import DataSpec

VECTORS = DataSpec("vectors", (2,), 4)
IMAGES = DataSpec("images", (1, 8, 8), 10)
ADAPTER = TypeAdapter(NetConfig)


@pytest.mark.parametrize(
    "config", [MLPConfig(width=8), UNetConfig(arch="adm", channel_mult=(1, 2), num_blocks=1)]
)
def test_json_round_trip(config):
    assert ADAPTER.validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "transformer"},
        {"kind": "unet", "arch": "resnet"},
        {"kind": "mlp", "depth": 3},
        {"kind": "mlp", "width": 0},
        {"kind": "mlp", "embedding": 7},
        {"kind": "unet", "channel_mult": []},
        {"kind": "unet", "dropout": 1.0},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(settings)


def test_build_net_picks_the_network():
    assert isinstance(build_net(MLPConfig(), VECTORS), MLP)
    with torch.device("meta"):
        assert isinstance(build_net(UNetConfig(channel_mult=(1, 2)), IMAGES), UNet)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (MLPConfig(), IMAGES, "set kind = 'unet'"),
        (UNetConfig(), VECTORS, "set kind = 'mlp'"),
        (UNetConfig(), DataSpec("wide", (3, 8, 16), 2), "square images"),
    ],
)
def test_network_that_does_not_fit_the_data_is_refused(config, spec, message):
    with pytest.raises(ValueError, match=message):
        build_net(config, spec)
