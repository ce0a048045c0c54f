"""Imported networks sampled by their methods, against trajectories of the published code."""

import numpy as np
import pytest
import torch

from methods import Guidance
from methods.dit import DiT, DiTConfig, DiTNet, SiT, SiTConfig, vp_sigmas, vp_time
from methods.edm2 import EDM2, EDM2Config, EDM2Net
from methods.rules import CFG, CFGPlusPlus, make_rule
from methods.samplers import Sampler
from methods.spec import DataSpec
from tests.methods.nets.golden import relative
from tests.methods.nets.test_foreign import numbers, weights

TOLERANCE = 1e-5
EULER = Sampler("euler")
EDM2_NET = EDM2Net(
    channels=8, channel_mult=(1, 2, 3), num_blocks=2, attn_resolutions=(8,), channels_per_head=8
)
WEAK_NET = EDM2_NET.model_copy(
    update={"channel_mult": (1, 2), "num_blocks": 1, "conditional": False}
)
LATENTS16 = DataSpec("latents", (4, 16, 16), 10)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


class Given:
    """A generator whose only draw is given."""

    indices = (0, 1, 2)

    def __init__(self, noise):
        self.noise = noise

    def randn(self, shape, device):
        assert tuple(self.noise.shape[1:]) == tuple(shape)
        return self.noise


def edm2(**settings):
    return EDM2(EDM2Config(net=EDM2_NET, clamp=False, **settings), LATENTS16)


def load(method, **parts):
    nets = method.build()
    state = {
        f"{prefix}{key}": value for prefix, part in parts.items() for key, value in part.items()
    }
    nets.load_state_dict({key.replace("null_", "null."): v for key, v in state.items()})
    return nets.eval()


def transformer(cls, name, data=None, **settings):
    """A method with its golden network."""
    net = DiTNet(patch=2, width=32, depth=2, heads=4, variance=name != "repa_sit")
    classes = 1000 if name == "repa_sit" else 10
    config = cls.config_type(net=net, clamp=False, **settings)
    method = cls(config, data or DataSpec("latents", (4, 8, 8), classes))
    nets = method.build()
    nets.load_state_dict(weights(name))
    return method, nets.eval()


def one_hot(y, classes=10):
    return torch.eye(classes)[y]


def test_edm2_samples_without_guidance():
    method, g = edm2(), numbers("edm2")
    nets = load(method, **{"": weights("edm2")})
    out = method.sample(nets, g["sampler_labels"], Guidance(1.0), 4, Given(g["latents"]))
    assert relative(out, g["sampler_g1"]) < TOLERANCE


def test_edm2_is_guided_by_an_unconditional_network():
    method = edm2().with_null(EDM2Config(net=WEAK_NET))
    g = numbers("edm2")
    null = weights("edm2", "param.gnet.", ())
    nets = load(method, **{"": weights("edm2"), "null_": null})
    out = method.sample(nets, g["sampler_labels"], Guidance(2.0), 4, Given(g["latents"]))
    assert relative(out, g["sampler_g2"]) < TOLERANCE
    assert method.nfe(Guidance(2.0), 4) == 14
    own = sum(p.numel() for n, p in nets.named_parameters() if not n.startswith("null."))
    share = sum(p.numel() for p in nets.null.parameters()) / own
    assert method.nfe_weighted(Guidance(2.0), 4) == pytest.approx(7 * (1 + share))


def test_edm2_guided_by_its_own_zero_labels():
    method, g = edm2(null_label=True), numbers("edm2")
    nets = load(method, **{"": weights("edm2")})
    out = method.sample(nets, g["sampler_labels"], Guidance(2.0), 4, Given(g["latents"]))
    assert relative(out, g["sampler_selfnull_g2"]) < TOLERANCE


def test_autoguidance_by_the_same_network_changes_nothing():
    method, g = edm2(), numbers("edm2")
    weak = method.with_weak(method.config)
    nets = weak.build().eval()
    own = weights("edm2")
    nets.load_state_dict(own | {f"weak.{key}": value for key, value in own.items()})
    guidance = Guidance(3.0, make_rule("autoguidance", {}))
    assert weak.supports(guidance, 4) is None
    out = weak.sample(nets, g["sampler_labels"], guidance, 4, Given(g["latents"]))
    assert relative(out, g["sampler_g1"]) < TOLERANCE
    assert weak.costs() == {"weak": 1.0}


def test_levels_of_dit_are_those_of_ddpm():
    g = numbers("dit")
    alpha_bar = 1 / (1 + vp_sigmas() ** 2)
    assert relative(alpha_bar, g["alpha_bar"]) < 1e-12
    assert float(vp_sigmas()[0]) == pytest.approx(0.0100005, abs=1e-7)
    assert float(vp_sigmas()[-1]) == pytest.approx(157.407281, abs=1e-6)
    assert relative(vp_sigmas()[g["t"]], g["sigma"]) < 1e-12
    assert torch.equal(vp_time(vp_sigmas()), torch.arange(1000, dtype=torch.float64))
    between = (vp_sigmas()[20] * vp_sigmas()[21]).sqrt()
    assert float(vp_time(between[None])) == pytest.approx(20.5)
    outside = vp_time(torch.tensor([1e-3, 1e3], dtype=torch.float64))
    assert outside.tolist() == [0, 999]


@pytest.mark.parametrize("steps", [4, 250])
def test_own_times_of_dit_are_the_published_ones(steps):
    method, _ = transformer(DiT, "dit", times="own")
    sigmas = method.grid(steps)
    times = vp_time(sigmas[:-1]).round().long().flip(0)
    assert torch.equal(times, numbers("dit")[f"timesteps_{steps}"])
    assert float(method.grid(1)[0]) == float(vp_sigmas()[-1])


def test_dit_denoiser():
    method, nets = transformer(DiT, "dit")
    g = numbers("dit")
    labels = one_hot(g["y"])
    for name, given in (("D_cond", labels), ("D_null", 0 * labels)):
        out = method.denoised(method.config, nets, g["x_ve"], g["sigma"], given)
        for row, want in zip(out, g[name], strict=True):  # their sizes differ by 1e4
            assert relative(row, want) < TOLERANCE


@pytest.mark.parametrize(("scale", "name"), [(1.0, "ddim4"), (4.0, "ddim4_cfg4")])
def test_dit_follows_ddim_with_guidance_of_three_channels(scale, name):
    method, nets = transformer(DiT, "dit", times="own")
    method, g = method.with_sampler(EULER), numbers("dit")
    top = float(vp_sigmas()[-1])
    start = Given(g["latents"].double() * (1 + top**2) ** 0.5 / top)
    labels = one_hot(g["sampler_y"])
    out = method.sample(nets, labels, Guidance(scale), 4, start)
    assert relative(out, g[name][-1]) < TOLERANCE
    every, _ = transformer(DiT, "dit", times="own", channels="all")
    other = every.with_sampler(EULER).sample(nets, labels, Guidance(scale), 4, start)
    assert (relative(other, out) < TOLERANCE) == (scale == 1)


@pytest.mark.parametrize(("name", "time"), [("sit", "sit"), ("repa_sit", "repa")])
def test_sit_denoiser_in_both_directions_of_time(name, time):
    method, nets = transformer(SiT, name, time=time)
    g = numbers(name)
    labels = one_hot(g["y"], method.data.num_classes)
    known = torch.isfinite(g["sigma"]) & (g["sigma"] > 0)
    assert known.sum() >= 2
    x, sigma = g["x_ve"].double(), g["sigma"].double()
    out = method.denoised(method.config, nets, x[known], sigma[known], labels[known])
    assert relative(out, g["D_cond"][known]) < TOLERANCE
    turned = method.config.model_copy(update={"time": {"sit": "repa", "repa": "sit"}[time]})
    wrong = method.denoised(turned, nets, x[known], sigma[known], labels[known])
    assert relative(wrong, g["D_cond"][known]) > 0.1


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(
    ("name", "time", "channels"), [("sit", "sit", 3), ("repa_sit", "repa", "all")]
)
def test_sit_follows_eulers_steps(name, time, channels, scale):
    method, nets = transformer(SiT, name, time=time, channels=channels, times="own")
    method, g = method.with_sampler(EULER), numbers(name)
    labels = one_hot(g["sampler_y"], method.data.num_classes)
    start = Given(g["latents"].double() * (1 + 1e6) / 1e6)
    out = method.sample(nets, labels, Guidance(scale), 4, start)
    want = g["euler4" if scale == 1 else "euler4_cfg4"]
    assert relative(out, want if want.ndim == 4 else want[-1]) < TOLERANCE


def test_only_three_channels_are_guided_under_every_rule():
    method, nets = transformer(DiT, "dit")
    labels, start = one_hot(torch.tensor([1, 2, 3])), Given(numbers("dit")["latents"])
    off = method.sample(nets, labels, Guidance(1.0), 1, start)
    for rule in (CFG(), CFGPlusPlus(), make_rule("interval+apg", {"interval": {"high": 1e9}})):
        assert method.supports(Guidance(4.0, rule), 1) is None
        out = method.sample(nets, labels, Guidance(4.0, rule), 1, start)
        assert relative(out[:, 3], off[:, 3]) < TOLERANCE
        assert not torch.allclose(out[:, :3], off[:, :3])


def test_labels_may_be_mixed():
    _, nets = transformer(DiT, "dit")
    table = nets.y_embedder.embedding_table.weight
    labels = torch.zeros(1, 10)
    labels[0, :2] = torch.tensor([0.5, 0.25])
    want = np.array([0.5, 0.25, 0.25]) @ table[[0, 1, 10]].numpy()
    assert relative(nets.y_embedder(labels)[0], torch.tensor(want)) < TOLERANCE


def sit(**settings):
    return transformer(SiT, "sit", time="sit", **settings)[0]


@pytest.mark.parametrize(
    ("method", "rule", "message"),
    [
        (edm2(), "cfg", "--null-checkpoint"),
        (edm2(), "autoguidance", "--weak-checkpoint"),
        (edm2(null_label=True), "pag", "attention of edm2"),
        (EDM2(EDM2Config(net=WEAK_NET), LATENTS16), "cfg", "unconditional network"),
        (sit(times="own"), "cfg", "add --sampler euler"),
        (sit(times="own").with_sampler(Sampler("euler", "cosine")), "cfg", "--grid cosine"),
    ],
)
def test_what_is_not_possible_is_skipped_with_its_reason(method, rule, message):
    assert message in (method.supports(Guidance(2.0, make_rule(rule, {})), 4) or "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: edm2().with_null(EDM2Config(net=EDM2_NET)), "no unconditional output"),
        (lambda: edm2().with_weak(EDM2Config(net=WEAK_NET)), "takes no classes"),
        (lambda: DiTConfig(net=DiTNet(), sigma_min=0.002), "levels from 0.010001"),
        (lambda: DiTConfig(net=DiTNet(), sigma_max=158), "to 157.4073"),
        (lambda: SiTConfig(net=DiTNet()), "time"),
        (lambda: EDM2Config(net=EDM2Net(), sigma_min=9, sigma_max=1), "must ascend"),
        (lambda: EDM2(EDM2Config(net=EDM2Net()), DataSpec("v", (2,), 2)).build(), "square images"),
        (lambda: DiT(DiTConfig(net=DiTNet()), DataSpec("v", (2,), 2)).build(), "square images"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
