"""EDM2's, DiT's and SiT's networks against numbers from the published code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from methods.dit import DiT, DiTConfig, DiTNet
from methods.edm2 import EDM2, EDM2Config, EDM2Net
from methods.nets.edm2 import EDM2Precond, UNet, mp_cat, mp_silu, mp_sum
from methods.spec import DataSpec
from tests.methods.nets.golden import FOLDER, relative

# An independent implementation differs by 1e-6 in float32, a wrong one by far more.
TOLERANCE = 1e-5
LAYOUTS = json.loads((FOLDER / "foreign_layouts.json").read_text())
CHANNELS = {"xxs": 64, "xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}


def weights(name, prefix="param.", but=("gnet", "projectors")):
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return {
        key.removeprefix(prefix): value.float()
        for key, value in tensors.items()
        if key.startswith(prefix) and not any(f"param.{part}" in key for part in but)
    }


def numbers(name):
    return load_file(FOLDER / f"{name}.safetensors")


def edm2(prefix="param.", *, classes=10, mult=(1, 2, 3), blocks=2, clip=256.0):
    unet = UNet(
        resolution=16, image_channels=4, num_classes=classes, channels=8, channel_mult=mult,
        num_blocks=blocks, attn_resolutions=(8,), channels_per_head=8, clip=clip,
    )  # fmt: skip
    net = EDM2Precond(unet)
    net.load_state_dict(weights("edm2", prefix, () if "gnet" in prefix else ("gnet",)))
    return net.eval()


def transformer(name, *, variance, classes):
    config = DiTConfig(net=DiTNet(patch=2, width=32, depth=2, heads=4, variance=variance))
    net = DiT.network(config, DataSpec("golden", (4, 8, 8), classes))
    positions = net.pos_embed.clone()
    net.load_state_dict(weights(name))
    assert torch.equal(positions, net.pos_embed)
    return net


def official(name):
    """The network of a published name, without memory for its weights."""
    channels, resolution = 4, 64 if name.endswith(" 512") or name.startswith("edm2") else 32
    if name.startswith("edm2"):
        _, images, size, *rest = name.split("-")
        channels = 4 if images == "img512" else 3
        net = EDM2Net(channels=CHANNELS[size], conditional=not rest)
        cls, config = EDM2, EDM2Config(net=net)
    else:
        size, patch = name.removeprefix("REPA ").split()[0].split("-")[1].split("/")
        depth, width, heads = SIZES[size]
        variance = "REPA" not in name and "no-sigma" not in name
        net = DiTNet(patch=int(patch), width=width, depth=depth, heads=heads, variance=variance)
        cls, config = DiT, DiTConfig(net=net)
    with torch.device("meta"):
        return cls.network(config, DataSpec(name, (channels, resolution, resolution), 1000))


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_and_parameter_count_of_published_networks(name):
    module, layout = official(name), LAYOUTS[name]
    state = layout.get("state") or LAYOUTS[layout["same_state_as"]]["state"]
    training_only = {key: shape for key, shape in state.items() if key.startswith("projectors.")}
    assert {k: list(v.shape) for k, v in module.state_dict().items()} == {
        key: shape for key, shape in state.items() if key not in training_only
    }
    dropped = sum(torch.empty(shape, device="meta").numel() for shape in training_only.values())
    assert sum(p.numel() for p in module.parameters()) == layout["params"] - dropped
    assert sorted(k for k, _ in module.named_buffers()) == sorted(layout.get("buffers", []))
    assert bool(training_only) == name.startswith("REPA")


def test_edm2_network():
    net, g = edm2(), numbers("edm2")
    inputs = g["x"], g["sigma"]
    with torch.no_grad():
        assert relative(net(*inputs, g["labels"]), g["out_cond"]) < TOLERANCE
        assert relative(net(*inputs, 0 * g["labels"]), g["out_null"]) < TOLERANCE
        assert relative(net.logvar(g["sigma"]), g["logvar"].flatten()) < TOLERANCE
        clipped = edm2(clip=1.5)(*inputs, g["labels"])
        assert relative(clipped, g["out_clip1.5"]) < TOLERANCE
        unconditional = edm2("param.gnet.", classes=0, mult=(1, 2), blocks=1)
        assert relative(unconditional(*inputs, g["labels"]), g["g_out"]) < TOLERANCE


def test_edm2_normalises_stored_weights_in_training_mode():
    net, g = edm2().train(), numbers("edm2")
    out = net(g["x"], g["sigma"], g["labels"])
    assert relative(out.detach(), g["out_train"]) < TOLERANCE
    (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    forced, grads = weights("edm2", "forced."), weights("edm2", "grad.")
    assert len(forced) == len(grads) == 4
    state, parameters = net.state_dict(), dict(net.named_parameters())
    for name, value in forced.items():
        assert relative(state[name], value) < TOLERANCE
    for name, value in grads.items():
        assert relative(parameters[name].grad, value) < TOLERANCE
    with torch.no_grad():
        after = net.eval()(g["x"], g["sigma"], g["labels"])
    assert relative(after, g["out_eval_after_forced"]) < TOLERANCE


def test_edm2_operations_preserve_magnitude():
    a, b = torch.randn(2, 4, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    for out in (mp_silu(a), mp_sum(a, b, 0.3), mp_cat(a, b[:, :16])):
        assert out.square().mean().sqrt() == pytest.approx(1, abs=0.01)


def test_dit_network():
    net, g = transformer("dit", variance=True, classes=10), numbers("dit")
    labels = torch.eye(10)[g["y"]]
    with torch.no_grad():
        assert relative(net(g["x"], g["t"], labels), g["out_cond"]) < TOLERANCE
        assert relative(net(g["x"], g["t"], 0 * labels), g["out_null"]) < TOLERANCE
        between = torch.tensor([0.5, 20.25, 500.75, 998.5])
        assert relative(net(g["x"], between, labels), g["out_fractional_t"]) < TOLERANCE
        net.pos_embed *= 2**-10
        net.x_embedder.proj.bias *= 2**-10
        assert relative(net(g["x"] * 2**-10, g["t"], labels), g["out_small"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "variance", "classes"), [("sit", True, 10), ("repa_sit", False, 1000)]
)
def test_sit_network(name, variance, classes):
    net, g = transformer(name, variance=variance, classes=classes), numbers(name)
    labels = torch.eye(classes)[g["y"]]
    with torch.no_grad():
        assert relative(net(g["x"], g["t"], labels)[:, :4], g["v_cond"]) < TOLERANCE
        assert relative(net(g["x"], g["t"], 0 * labels)[:, :4], g["v_null"]) < TOLERANCE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(resolution=12, image_channels=1, num_classes=2, channels=64), "be halved 3"),
        (lambda: UNet(resolution=8, image_channels=1, num_classes=2, channels=8), "at least 64"),
        (lambda: official_like(patch=3), "patches of 3"),
        (lambda: official_like(width=30, heads=2), "multiple of 4"),
        (lambda: official_like(heads=5), "into 5 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def official_like(**net):
    config = DiTConfig(net=DiTNet(**{"patch": 2, "width": 32, "depth": 1, "heads": 4} | net))
    return DiT.network(config, DataSpec("small", (4, 8, 8), 10))
