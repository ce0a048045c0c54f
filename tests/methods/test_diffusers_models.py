"""Networks of diffusers as a method, against diffusers' own schedulers and pipeline."""

import math

import numpy as np
import pytest
import torch

from bench.plugins.conformance import MethodConformance
from methods import METHODS, Guidance, Preset
from methods.diffusers_models import (
    DiffusersConfig,
    DiffusersModel,
    DiffusersNet,
    Labels,
    Schedule,
    diffusers_levels,
)
from methods.rules import make_rule
from methods.samplers import Sampler
from methods.spec import DataSpec
from tests.methods.nets.golden import relative
from tests.methods.test_pretrained import EULER, Given

DIT = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8,
    "num_layers": 2, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10,
    "norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True,
    "norm_elementwise_affine": False,
}  # fmt: skip
UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1,
    "norm_num_groups": 4, "num_class_embeds": 11,
}  # fmt: skip
NETS = {
    "dit": ("DiTTransformer2DModel", DIT),
    "old-dit": ("Transformer2DModel", DIT),
    "continuous": ("Transformer2DModel", {k: v for k, v in DIT.items() if k != "patch_size"}
                   | {"norm_num_groups": 2, "out_channels": 4}),
    "unet": ("UNet2DModel", UNET),
    "learned-times": ("UNet2DModel", UNET | {"time_embedding_type": "learned",
                                             "num_train_timesteps": 1000}),
}  # fmt: skip
diffusers = pytest.importorskip("diffusers")
LATENTS = DataSpec("latents", (4, 8, 8), 10)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def made(name, data=LATENTS, **settings):
    """A method, its network, and the same network of diffusers itself."""
    kind, arguments = NETS[name]
    if data.num_classes != 10:
        arguments = arguments | {"num_embeds_ada_norm": data.num_classes}
    settings = {"prediction": "eps", "schedule": Schedule(), "clamp": False} | settings
    if name == "learned-times":
        settings["timesteps"] = "nearest"
    net = DiffusersNet(kind=kind, arguments=arguments)
    levels = diffusers_levels(settings["schedule"])
    ends = {"sigma_min": float(levels[0]), "sigma_max": float(levels[-1])}
    method = DiffusersModel(DiffusersConfig(net=net, **ends | settings), data)
    torch.manual_seed(0)
    own = getattr(diffusers, kind)(**arguments).eval()
    for parameter in own.parameters():  # layers that start at zero would hide their inputs
        parameter.add_(0.1 * torch.randn_like(parameter))
    nets = method.build()
    nets.load_state_dict(own.state_dict())
    return method, nets.eval(), own


SCHEDULES = [
    Schedule(),
    Schedule(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    Schedule(beta_schedule="squaredcos_cap_v2"),
]
NAMES = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.beta_schedule)
@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("name", NETS)
def test_denoised_equals_the_original_sample_of_the_scheduler(name, prediction, schedule):
    method, nets, own = made(name, prediction=prediction, schedule=schedule)
    scheduler = diffusers.DDIMScheduler(
        **schedule.model_dump(), prediction_type=NAMES[prediction], clip_sample=False
    )
    scheduler.set_timesteps(1000)
    classes = torch.tensor([3, 10, 0, 9])  # 10: no class
    labels = torch.cat([torch.eye(10), torch.zeros(1, 10)])[classes]
    times = torch.tensor([0, 7, 500, 999])
    x = torch.randn(4, 4, 8, 8)
    out = own(x, timestep=times, class_labels=classes, return_dict=False)[0][:, :4]
    sigma = diffusers_levels(schedule)[times]
    scaled = x.double() * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    got = method.denoised(method.config, nets, scaled, sigma, labels)
    for row, t in enumerate(times):
        want = scheduler.step(out[row].double(), int(t), x[row].double()).pred_original_sample
        assert relative(got[row], want) < 1e-6, (row, t)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_eulers_steps_follow_the_pipeline(monkeypatch, spacing, scale):
    data = DataSpec("latents", (4, 8, 8), 1000)
    schedule = Schedule(timestep_spacing=spacing)
    method, nets, own = made("dit", data, schedule=schedule, times="own")
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=1, latent_channels=4, layers_per_block=1
    )
    decoder.register_to_config(scaling_factor=1.0)
    latents = []
    decode = decoder.decode
    monkeypatch.setattr(decoder, "decode", lambda z: (latents.append(z), decode(z))[1])
    ddim = diffusers.DDIMScheduler(**schedule.model_dump(), clip_sample=False)
    pipeline = diffusers.DiTPipeline(own, decoder, ddim)
    pipeline.set_progress_bar_config(disable=True)
    classes = [3, 700, 999]
    generator = torch.Generator().manual_seed(1)
    pipeline(classes, scale, generator, 4, output_type="pt")
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    top = float(method.grid(4)[0])
    start = Given(noise.double() * math.sqrt(1 + top**2) / top)
    labels = torch.eye(1000)[classes]
    euler = method.with_sampler(EULER)
    assert euler.supports(Guidance(scale), 4) is None
    got = euler.sample(nets, labels, Guidance(scale), 4, start)
    assert relative(got, latents[0]) < 1e-4
    three, _, _ = made("dit", data, schedule=schedule, times="own", channels=3)
    other = three.with_sampler(EULER).sample(nets, labels, Guidance(scale), 4, start)
    assert (relative(other, got) < 1e-4) == (scale == 1)


@pytest.mark.parametrize(
    ("spacing", "offset", "times"),
    [
        ("leading", 0, [750, 500, 250, 0]),
        ("leading", 1, [751, 501, 251, 1]),
        ("trailing", 0, [999, 749, 499, 249]),
        ("linspace", 0, [999, 666, 333, 0]),
    ],
)
def test_own_times_are_spaced_as_the_scheduler_says(spacing, offset, times):
    schedule = Schedule(timestep_spacing=spacing, steps_offset=offset)
    method, _, _ = made("dit", schedule=schedule, times="own")
    assert torch.equal(method.grid(4)[:-1], diffusers_levels(schedule)[times])
    assert float(method.grid(4)[-1]) == 0


def test_levels_are_those_of_the_schedule():
    t = np.arange(1000)
    linear, scaled, cosine = (
        np.linspace(1e-4, 0.02, 1000),
        np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
        1 - np.cos((t + 1 + 8) / 1008 * np.pi / 2) ** 2 / np.cos((t + 8) / 1008 * np.pi / 2) ** 2,
    )
    for schedule, betas in zip(SCHEDULES, (linear, scaled, cosine.clip(max=0.999)), strict=True):
        alpha_bar = np.cumprod(1 - betas)
        want = np.sqrt((1 - alpha_bar) / alpha_bar)
        # 1 - alpha_bar of 4e-5 keeps a relative 1e-3 in float32, and the root half of it.
        np.testing.assert_allclose(diffusers_levels(schedule), want, rtol=1e-3)
        trained = Schedule(trained_betas=tuple(betas))
        np.testing.assert_allclose(diffusers_levels(trained), want, rtol=1e-3)


def test_zero_terminal_snr_has_a_finite_last_level():
    levels = diffusers_levels(Schedule(rescale_betas_zero_snr=True))
    assert levels.isfinite().all()
    assert float(levels[-1] / levels[-2]) == 2
    assert levels[-2] > 1000
    with pytest.raises(ValueError, match="does not grow"):
        diffusers_levels(Schedule(trained_betas=(0.1, 0.0, 0.1)))


def test_nearest_takes_time_and_level_of_the_table():
    method, nets, _ = made("dit", timesteps="nearest")
    exact, _, _ = made("dit")
    levels = diffusers_levels(method.config.schedule)
    x, labels = 5 * torch.randn(2, 4, 8, 8).double(), torch.eye(10)[:2]
    low, high = levels[[20, 500]], levels[[21, 501]]
    got = method.denoised(method.config, nets, x, low**0.6 * high**0.4, labels)
    assert relative(got, exact.denoised(exact.config, nets, x, low, labels)) < 1e-6
    between = exact.denoised(exact.config, nets, x, low**0.6 * high**0.4, labels)
    assert relative(got, between) > 1e-4


def test_labels_may_be_mixed():
    table = torch.nn.Embedding(11, 3)
    labels = torch.zeros(2, 10)
    labels[0, :2] = torch.tensor([0.5, 0.25])
    want = np.array([0.5, 0.25, 0.25]) @ table.weight[[0, 1, 10]].numpy()
    got = Labels(table)(labels)
    assert relative(got[0], torch.tensor(want)) < 1e-6
    assert torch.equal(got[1], table.weight[10])
    assert torch.equal(Labels(torch.nn.Embedding(10, 3))(labels)[1], torch.zeros(3))


def unet(count, **settings):
    net = DiffusersNet(kind="UNet2DModel", arguments=UNET | {"num_class_embeds": count})
    return DiffusersConfig(net=net, schedule=Schedule(), prediction="eps", **settings)


def test_unconditional_network_is_the_null_branch_of_another():
    method = DiffusersModel(unet(10, null_label=False), LATENTS)
    assert "--null-checkpoint" in (method.supports(Guidance(2.0), 4) or "")
    paired = method.with_null(unet(None))
    assert paired.supports(Guidance(2.0), 4) is None
    nets = paired.build().eval()
    start = Given(torch.randn(3, 4, 8, 8))
    out = paired.sample(nets, torch.eye(10)[:3], Guidance(2.0), 2, start)
    assert out.isfinite().all()
    assert paired.nfe(Guidance(2.0), 2) == 6
    assert paired.nfe_weighted(Guidance(2.0), 2) < 6


@pytest.mark.parametrize(
    ("settings", "steps", "rule", "message"),
    [
        ({}, 4, "pag", "attention of diffusers"),
        ({"times": "own"}, 1001, "cfg", "later times than 999"),
        ({"times": "own", "schedule": Schedule(steps_offset=1)}, 1000, "cfg", "later times"),
    ],
)
def test_what_is_not_possible_is_skipped_with_its_reason(settings, steps, rule, message):
    method, _, _ = made("dit", **settings)
    assert message in (method.supports(Guidance(2.0, make_rule(rule, {})), steps) or "")


def test_own_times_are_no_grid():
    method, _, _ = made("dit", times="own")
    other = method.with_sampler(Sampler("euler", "cosine"))
    assert "--grid cosine" in (other.supports(Guidance(1.0), 4) or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_max": 158.0}, "noise levels from 0.01000.* to 157.40"),
        ({"sigma_min": 0.002}, "got sigma_min 0.002"),
        ({"timesteps": "interpolated", "kind": "learned-times"}, "timesteps=nearest"),
        ({"classes": 8}, "it has 11 embeddings of classes, and the data have 8"),
        ({"arguments": {"num_layers": 5000}}, "num_layers is at most 1000"),
        ({"arguments": {"num_layers": [[1]]}}, "arguments"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    change = dict(change)
    kind, arguments = NETS[change.pop("kind", "dit")]
    arguments = arguments | change.pop("arguments", {})
    data = DataSpec("latents", (4, 8, 8), change.pop("classes", 10))

    def build():
        net = DiffusersNet(kind=kind, arguments=arguments)
        config = DiffusersConfig(net=net, schedule=Schedule(), prediction="eps", **change)
        DiffusersModel(config, data).build()

    with pytest.raises(ValueError, match=message):
        build()


class Held(DiffusersModel):
    """The adapter as the battery takes methods: with a preset, and without training."""

    name = "held"
    trains = False


class TestConformance(MethodConformance):
    method = Held
    preset = "digits"

    @pytest.fixture(
        autouse=True, params=["dit", "unet", pytest.param("continuous", marks=pytest.mark.long)]
    )
    def _registered(self, request, monkeypatch):
        kind, arguments = NETS[request.param]
        one = {"in_channels": 1, "out_channels": 2, "norm_num_groups": 1}
        more = {
            "dit": {"timesteps": "nearest"}, "unet": {"prediction": "v", "sigma_max": 80.0},
            "continuous": {"times": "own"},
        }[request.param]  # fmt: skip
        config = DiffusersConfig(
            net=DiffusersNet(kind=kind, arguments=arguments | one), schedule=Schedule(),
            **{"prediction": "eps"} | more,
        )  # fmt: skip
        preset = Preset(dataset="digits", config=config, train=None, steps=(3,))
        monkeypatch.setattr(Held, "presets", {"digits": preset})
        monkeypatch.setitem(METHODS, "held", Held)
