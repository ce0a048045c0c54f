"""Properties of the U-Nets that the golden files do not cover."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.nets.blocks import UNetBlock, group_norm
from methods.nets.config import UNetConfig, build_net
from methods.nets.dropout import seeded_dropout
from methods.nets.resample import ResampledConv, filter_2d, resample
from methods.nets.unet import UNet
from methods.spec import DataSpec
from tests.methods.nets.golden import awaken

DIGITS = DataSpec("digits", (1, 8, 8), 10)
ARCHS = ["ddpmpp", "ncsnpp", "adm"]


def small(arch, guidance_dim=0, **options):
    torch.manual_seed(0)
    settings = {"channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
    return build_net(UNetConfig(arch=arch, **settings | options), DIGITS, guidance_dim)


def inputs(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 1, 8, 8, generator=generator)
    c_noise = torch.linspace(-1.5, 1.0, batch)
    labels = F.one_hot(torch.arange(batch) % 10, 10).float()
    return x, c_noise, labels


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("arch", ARCHS)
def test_any_channels_and_resolution(arch):
    x, c_noise, labels = inputs()
    assert awaken(small(arch))(x, c_noise, labels).shape == x.shape
    deep = build_net(
        UNetConfig(arch=arch, channels=8, channel_mult=(1, 2, 1), num_blocks=2),
        DataSpec("other", (5, 16, 16), 3),
    )
    assert deep(torch.randn(2, 5, 16, 16), c_noise[:2], labels[:2, :3]).shape == (2, 5, 16, 16)


def test_indivisible_resolution_is_refused():
    with pytest.raises(ValueError, match="halves the image 4 times"):
        small("ddpmpp", channel_mult=(1, 1, 1, 1, 1))


@pytest.mark.parametrize(("arch", "eps"), [("ddpmpp", 1e-6), ("ncsnpp", 1e-6), ("adm", 1e-5)])
def test_group_norms(arch, eps):
    norms = [m for m in small(arch, channels=64).modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {eps}
    assert {(norm.num_channels, norm.num_groups) for norm in norms} == {
        (64, 16),
        (128, 32),
        (192, 32),
        (256, 32),
    }


def test_channels_that_do_not_divide_into_groups_are_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        group_norm(144, 1e-6)


@pytest.mark.parametrize("arch", ARCHS)
def test_position_and_heads_of_attention(arch):
    model = small(arch, channels=64, num_blocks=2, channel_mult=(1, 2), attn_resolutions=(8, 4))
    heads = {
        name: m.heads for name, m in model.named_modules() if isinstance(m, UNetBlock) and m.heads
    }
    always = ["enc.8x8_block0", "enc.8x8_block1", "enc.4x4_block0", "enc.4x4_block1", "dec.4x4_in0"]
    decoder = ["dec.4x4_block2", "dec.8x8_block2"]
    if arch == "adm":
        decoder += ["dec.4x4_block0", "dec.4x4_block1", "dec.8x8_block0", "dec.8x8_block1"]
    assert set(heads) == set(always + decoder)
    expected = {name: 2 if arch == "adm" and "4x4" in name else 1 for name in heads}
    assert heads == expected


@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_reach_every_parameter(arch):
    options = {} if arch == "adm" else {"augment_dim": 9}
    model = awaken(small(arch, guidance_dim=8, **options))
    x, c_noise, labels = inputs(4)
    augment = None if arch == "adm" else torch.randn(4, 9)
    labels = labels.roll(1, 0)
    out = model(x, c_noise, labels, torch.randn(4, 8), augment=augment)
    out.square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("arch", ARCHS)
def test_dropout_mask_depends_on_the_seed_only(arch):
    model = awaken(small(arch, dropout=0.3))
    args = inputs()
    first = model(*args, dropout=generator(1))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(first, model(*args, dropout=generator(1)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, model(*args, dropout=generator(2)))


@pytest.mark.parametrize("arch", ARCHS)
def test_no_dropout_without_a_generator_in_train_or_eval_mode(arch):
    args = inputs()
    model, same = awaken(small(arch, dropout=0.3)), awaken(small(arch, dropout=0.0))
    want = same(*args)
    assert torch.equal(model.train()(*args), want)
    assert torch.equal(model.eval()(*args), want)
    assert not torch.equal(model.eval()(*args, dropout=generator(1)), want)


def test_dropout_keeps_the_mean():
    x = torch.ones(200_000)
    out = seeded_dropout(x, 0.2, generator(0))
    assert set(out.unique().tolist()) == {0.0, 1.25}
    # The share of zeros is binomial. The tolerance is five standard deviations of 9e-4.
    assert float((out == 0).float().mean()) == pytest.approx(0.2, abs=5e-3)


@pytest.mark.parametrize("arch", ARCHS)
def test_rows_are_independent_of_each_other(arch):
    model = awaken(small(arch))
    x, c_noise, labels = inputs(4)
    whole, part = model(x, c_noise, labels), model(x[1:3], c_noise[1:3], labels[1:3])
    # Batched kernels may sum in a different order.
    torch.testing.assert_close(whole[1:3], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["ddpmpp", "ncsnpp"])
def test_missing_augmentation_labels_mean_zeros(arch):
    model = awaken(small(arch, augment_dim=9))
    args = inputs()
    assert torch.equal(model(*args), model(*args, augment=torch.zeros(3, 9)))
    assert not torch.equal(model(*args), model(*args, augment=torch.ones(3, 9)))
    assert model.map_augment.bias is None


def test_inputs_without_a_layer_are_refused():
    args = inputs()
    with pytest.raises(ValueError, match="augment_dim to 0"):
        small("adm", augment_dim=9)
    with pytest.raises(ValueError, match="no augmentation labels"):
        small("ncsnpp")(*args, augment=torch.zeros(3, 9))
    with pytest.raises(ValueError, match="takes no guidance embedding"):
        small("ncsnpp")(*args, torch.zeros(3, 8))
    with pytest.raises(ValueError, match="needs w_embed"):
        small("ncsnpp", guidance_dim=8)(*args)


@pytest.mark.parametrize("arch", ARCHS)
def test_guidance_layer_exists_only_with_guidance_dim(arch):
    names = set(small(arch).state_dict())
    extra = set(small(arch, guidance_dim=8).state_dict()) - names
    assert extra == {"map_w_embed.weight", "map_w_embed.bias"}


def fans(layer):
    area = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
    return layer.weight.shape[1] * area, layer.weight.shape[0] * area


def check_uniform(values, bound):
    """Check the range +-bound and the standard deviation of a uniform draw, bound / sqrt(3)."""
    assert float(values.abs().max()) <= bound * (1 + 1e-6)
    # The standard deviation of n uniform draws has a relative standard error of 0.45 / sqrt(n).
    error = 5 * 0.45 / math.sqrt(values.numel())
    assert float(values.square().mean().sqrt()) == pytest.approx(bound / math.sqrt(3), rel=error)


def layers(model):
    return [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.numel() >= 32
    ]


@pytest.mark.parametrize("arch", ["ddpmpp", "ncsnpp"])
def test_xavier_initialisation(arch):
    for name, layer in layers(small(arch, guidance_dim=8, augment_dim=9)):
        fan_in, fan_out = fans(layer)
        last = name.rsplit(".", 1)[-1]
        scale = 1.0
        if last in ("conv1", "proj") or last.endswith("aux_conv"):
            scale = 1e-5
        elif last == "qkv":
            scale = math.sqrt(0.2)
        check_uniform(layer.weight.detach(), scale * math.sqrt(6 / (fan_in + fan_out)))
        assert layer.bias is None or not layer.bias.any(), name


def test_adm_initialisation():
    for name, layer in layers(small("adm", guidance_dim=8)):
        last = name.rsplit(".", 1)[-1]
        if last in ("conv1", "proj", "out_conv"):
            assert not layer.weight.any(), name
            assert not layer.bias.any(), name
        elif last == "map_label":
            # Kaiming normal has a standard deviation of 1 / sqrt(K), times sqrt(K).
            error = 5 / math.sqrt(2 * layer.weight.numel())
            assert float(layer.weight.detach().std()) == pytest.approx(1.0, rel=error)
            assert layer.bias is None
        else:
            bound = math.sqrt(1 / 3) * math.sqrt(3 / fans(layer)[0])
            check_uniform(layer.weight.detach(), bound)
            check_uniform(layer.bias.detach(), bound)


@pytest.mark.parametrize("scale", [0.02, 16.0])
def test_fourier_frequencies(scale):
    freqs = small("ncsnpp", channels=64, fourier_scale=scale).map_noise.freqs
    assert freqs.shape == (64,)
    assert float(freqs.std()) == pytest.approx(scale, rel=5 / math.sqrt(2 * 64))


def test_initialisation_follows_the_global_seed():
    one, two = small("ncsnpp").state_dict(), small("ncsnpp").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_box_filter_averages_and_repeats():
    x = torch.randn(2, 3, 8, 8, generator=generator(0))
    box = filter_2d([1, 1])
    torch.testing.assert_close(resample(x, box, "down"), F.avg_pool2d(x, 2))
    torch.testing.assert_close(resample(x, box, "up"), F.interpolate(x, scale_factor=2))


def test_wide_filter_against_explicit_sums():
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    x = torch.randn(1, 1, 6, 6, generator=generator(0), dtype=torch.float64)
    kernel = filter_2d([1, 3, 3, 1])
    down, up = resample(x, kernel, "down"), resample(x, kernel, "up")

    def along(matrix):
        return matrix @ x[0, 0] @ matrix.T

    # One axis at a time: output i of "down" depends on inputs 2i - 1 .. 2i + 2, and input i of "up"
    # affects outputs 2i - 1 .. 2i + 2. Values outside are zero.
    matrix = torch.zeros(3, 6, dtype=torch.float64)
    for i in range(3):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i - 1 + k < 6:
                matrix[i, 2 * i - 1 + k] = tap
    torch.testing.assert_close(down[0, 0], along(matrix))
    spread = torch.zeros(12, 6, dtype=torch.float64)
    for i in range(6):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i - 1 + k < 12:
                spread[2 * i - 1 + k, i] = 2 * tap
    torch.testing.assert_close(up[0, 0], along(spread))


def test_filter_last_equals_the_convolution_of_a_padded_image():
    torch.manual_seed(0)
    layer = ResampledConv(2, 3, 3, [1, 3, 3, 1], "down", filter_last=True)
    x = torch.randn(2, 2, 8, 8)
    full = F.conv2d(F.pad(x, (2, 2, 2, 2)), layer.weight, layer.bias)
    want = resample(full, layer.resample_filter, "down", padding=0)
    torch.testing.assert_close(layer(x), want)
    assert want.shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="downsampling"):
        ResampledConv(2, 3, 3, [1, 1], "up", filter_last=True)


def test_network_is_built_without_weights_on_the_meta_device():
    with torch.device("meta"):
        model = small("ncsnpp")
    assert isinstance(model, UNet)
    assert all(p.is_meta for p in model.parameters())
