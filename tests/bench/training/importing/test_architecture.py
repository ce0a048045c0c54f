import pytest
import torch

from bench.system.errors import UserError
from bench.training.importing.architecture import cross_check, infer
from methods import METHODS
from methods.nets.config import UNetConfig, build_net
from methods.precond import ConsistencyPrecond
from methods.spec import DataSpec
from tests.methods.nets.golden import layouts

ADM = {"arch": "adm", "channels": 192, "num_blocks": 3, "attn_resolutions": (32, 16, 8)}
EXPECTED = {
    "edm-cifar10-32x32-cond-vp": ("edm", UNetConfig(arch="ddpmpp", augment_dim=9), 0),
    "edm-cifar10-32x32-cond-ve": ("edm", UNetConfig(augment_dim=9), 0),
    "edm-imagenet-64x64-cond-adm": ("edm", UNetConfig(**ADM, channel_mult=(1, 2, 3, 4)), 0),
    "igct-cifar10": ("igct", UNetConfig(), 256),
    "igct-imagenet64": ("igct", UNetConfig(**ADM, channel_mult=(1, 2, 2, 3)), 256),
    "guided-cd-cifar10": ("guided-cd", UNetConfig(), 256),
}


def shapes_of(layout):
    return {name: tuple(shape) for name, shape in layout["state"].items()}


def built(method, net, spec, guidance_dim):
    with torch.device("meta"):
        if method not in METHODS:
            return ConsistencyPrecond(build_net(net, spec, guidance_dim))
        cls = METHODS[method]
        tree = {"net": net.model_dump(mode="json")}
        if guidance_dim:
            tree["guidance_dim"] = guidance_dim
        return cls(cls.config_type.model_validate(tree), spec).build()


@pytest.mark.parametrize("key", layouts())
def test_official_layouts_give_networks_of_the_same_names_and_shapes(key):
    shapes = shapes_of(layouts()[key])
    method, net, guidance_dim = EXPECTED[key.split()[0]]
    prefixes = ["dec.", "enc."] if method == "igct" else ["model."]
    first, *others = (infer(shapes, prefix) for prefix in prefixes)
    assert first.net == net
    assert all((o.net, o.shape, o.guidance_dim) == (net, first.shape, 0) for o in others)
    size, classes = (64, 1000) if "imagenet" in key else (32, 10)
    assert (first.shape, first.num_classes) == ((3, size, size), classes)
    assert first.guidance_dim == guidance_dim
    nets = built(method, first.net, DataSpec("x", first.shape, classes), first.guidance_dim)
    assert {k: tuple(v.shape) for k, v in nets.state_dict().items()} == shapes


@pytest.mark.parametrize("arch", ["ddpmpp", "ncsnpp", "adm"])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(
    ("channel_mult", "num_blocks", "attention"),
    [((1,), 1, (16,)), ((2, 1), 3, (8,)), ((1, 2, 1), 2, (16, 8, 4)), ((1, 2), 1, ())],
)
def test_settings_are_inferred_from_shapes(arch, conditional, channel_mult, num_blocks, attention):
    net = UNetConfig(
        arch=arch, channels=64, channel_mult=channel_mult, num_blocks=num_blocks,
        attn_resolutions=attention, conditional=conditional,
    )  # fmt: skip
    with torch.device("meta"):
        module = build_net(net, DataSpec("x", (1, 16, 16), 7))
    shapes = {f"a.{k}": tuple(v.shape) for k, v in module.state_dict().items()}
    found = infer(shapes, "a.")
    assert found.net == net
    assert (found.shape, found.num_classes) == ((1, 16, 16), 7 if conditional else 0)


def test_consistent_arguments_pass_and_unknown_ones_are_ignored():
    found = infer(shapes_of(next(iter(layouts().values()))), "model.")
    agreeing = {"img_resolution": 32, "channel_mult": (2, 2, 2), "use_fp16": True}
    cross_check(found, agreeing | {"attn_resolutions": [16, 64]}, "EDMPrecond")
    with pytest.raises(UserError, match="img_resolution is 64 there, 32 by the parameters"):
        cross_check(found, {"img_resolution": 64}, "EDMPrecond")


def test_incomplete_file_of_many_blocks_is_refused_before_they_are_built():
    shapes = {f"model.enc.16x16_block{i}.conv1.weight": (8, 8, 3, 3) for i in range(5000)}
    shapes |= {"model.enc.16x16_conv.weight": (8, 3, 3, 3), "model.map_layer0.weight": (32, 8)}
    with pytest.raises(UserError, match="has 5000 blocks at its first level, and only 5002"):
        infer(shapes, "model.")
