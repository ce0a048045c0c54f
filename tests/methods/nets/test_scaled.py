"""The network of the preset "auto"."""

import pytest
import torch

from methods.nets import published
from methods.nets.config import build_net
from methods.nets.scaled import scaled_unet
from methods.spec import DataSpec


def test_scaled_networks_at_16_and_32_are_those_of_the_small_presets():
    assert scaled_unet((3, 16, 16), published.TINY.dropout) == published.TINY
    assert scaled_unet((3, 32, 32), published.SMALL.dropout) == published.SMALL


@pytest.mark.parametrize(
    ("side", "channels", "levels", "blocks", "attention"),
    [
        (1, 32, 1, 1, ()),
        (7, 32, 1, 1, ()),
        (8, 32, 2, 1, (4,)),
        (28, 64, 3, 2, (14,)),
        (48, 96, 4, 2, (12,)),
        (50, 128, 2, 2, ()),  # 25 pixels: the innermost block attends
        (64, 128, 4, 2, (16,)),
        (256, 128, 6, 2, (16,)),
    ],
)
def test_width_depth_and_attention_follow_the_resolution(side, channels, levels, blocks, attention):
    net = scaled_unet((3, side, side), 0.0)
    assert (net.channels, len(net.channel_mult), net.num_blocks) == (channels, levels, blocks)
    assert net.attn_resolutions == attention


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 33, 33), 32), ((1, 75, 75), 76), ((3, 129, 129), 128), ((3, 20, 30), 20),
     ((3, 90, 75), 76)],
)  # fmt: skip
def test_shapes_that_are_not_allowed_name_the_nearest_allowed_size(shape, size):
    with pytest.raises(ValueError, match=rf"--size {size}$"):
        scaled_unet(shape, 0.0)
    assert scaled_unet((shape[0], size, size), 0.0)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 10, 16])
def test_output_has_the_shape_of_the_images(side):
    spec = DataSpec("x", (4, side, side), 3)
    net = build_net(scaled_unet(spec.shape, 0.0), spec)
    x = torch.randn(2, *spec.shape)
    assert net(x, torch.zeros(2), torch.eye(3)[:2]).shape == x.shape
