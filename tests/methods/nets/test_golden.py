"""Networks, samplers and embeddings against numbers from the published code."""

import pytest
import torch

from methods.guidance import Guidance, cfg
from methods.guidance_embedding import embed_guidance
from methods.nets.config import UNetConfig, build_net
from methods.precond import ConsistencyPrecond, EDMPrecond, IGCTPrecond
from methods.samplers import invert_heun, karras_sigmas, sample_consistency, sample_heun
from methods.spec import DataSpec
from tests.methods.nets.golden import layouts, load, net, relative

# An independent implementation differs by 1e-6 in float32, a wrong one by far more.
TOLERANCE = 1e-5

CIFAR = DataSpec("cifar10", (3, 32, 32), 10)
IMAGENET = DataSpec("imagenet64", (3, 64, 64), 1000)
ADM = {"arch": "adm", "channels": 192, "num_blocks": 3, "attn_resolutions": (32, 16, 8)}


def edm(config, spec):
    return EDMPrecond(build_net(config, spec))


def igct(config, spec):
    return IGCTPrecond(build_net(config, spec), build_net(config, spec, 256))


OFFICIAL = {
    "edm-cifar10-32x32-cond-vp": lambda: edm(UNetConfig(arch="ddpmpp", augment_dim=9), CIFAR),
    "edm-cifar10-32x32-cond-ve": lambda: edm(UNetConfig(fourier_scale=16, augment_dim=9), CIFAR),
    "edm-imagenet-64x64-cond-adm": lambda: edm(
        UNetConfig(**ADM, channel_mult=(1, 2, 3, 4)), IMAGENET
    ),
    "igct-cifar10": lambda: igct(UNetConfig(), CIFAR),
    "igct-imagenet64": lambda: igct(UNetConfig(**ADM, channel_mult=(1, 2, 2, 3)), IMAGENET),
    "guided-cd-cifar10": lambda: ConsistencyPrecond(build_net(UNetConfig(), CIFAR, 256)),
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", OFFICIAL)
def test_layout_of_official_checkpoints(name):
    (layout,) = [v for k, v in layouts().items() if k.split()[0] == name]
    with torch.device("meta"):
        module = OFFICIAL[name]()
    assert {k: list(v.shape) for k, v in module.state_dict().items()} == layout["state"]
    assert sum(p.numel() for p in module.parameters()) == layout["params"]


def test_all_official_layouts_are_covered():
    assert {key.split()[0] for key in layouts()} == set(OFFICIAL)


@pytest.fixture(params=["ddpmpp", "ncsnpp"])
def edm_case(request):
    model = EDMPrecond(net(request.param))
    return model, load(f"edm_{request.param}", model)


def test_edm_network(edm_case):
    model, g = edm_case
    null = torch.zeros_like(g["labels"])
    assert relative(model(g["x"], g["sigma"], g["labels"]), g["out_cond"]) < TOLERANCE
    assert relative(model(g["x"], g["sigma"], null), g["out_uncond"]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("w", "tolerance"), [(0, TOLERANCE), (6, TOLERANCE), (12, 5e-5)])
def test_edm_sampler(edm_case, dtype, w, tolerance):
    # Strong guidance amplifies rounding: a float64 state differs by 4e-6 from the float32 state
    # that gave the numbers.
    model, g = edm_case
    null = torch.zeros_like(g["labels"])
    denoise = cfg(
        lambda x, sigma: model(x, sigma, g["labels"]),
        lambda x, sigma: model(x, sigma, null),
        Guidance.from_w(w),
    )
    samples = sample_heun(denoise, 80 * g["latents"], karras_sigmas(18), dtype=dtype)
    assert samples.dtype == dtype
    assert relative(samples, g[f"edm_sampler_w{w}"]) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edm_inversion(edm_case, dtype):
    model, g = edm_case
    latent = invert_heun(
        lambda x, sigma: model(x, sigma, g["labels"]),
        g["x"].clamp(-1, 1),
        karras_sigmas(18),
        dtype=dtype,
    )
    assert relative(latent, g["edm_invert"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "arch", "sigma_min", "form_in_training"),
    [
        ("ecm_ncsnpp", "ncsnpp", 0.003, "train"),
        # Guided distillation uses the inference form in training too.
        ("cd_ncsnpp", "ncsnpp", 0.002, "eval"),
        ("cd_adm", "adm", 0.002, "eval"),
    ],
)
def test_consistency_network(name, arch, sigma_min, form_in_training):
    model = ConsistencyPrecond(net(arch, 32), sigma_min=sigma_min)
    g = load(name, model)
    w_embed = embed_guidance(g["w"], 32)
    assert relative(w_embed, g["w_embed"]) < TOLERANCE
    inputs = g["x"], g["sigma"], g["labels"], w_embed
    assert relative(model(*inputs, form=form_in_training), g["out_train"]) < TOLERANCE
    assert relative(model(*inputs, form="eval"), g["out_eval"]) < TOLERANCE


@pytest.fixture
def igct_case():
    model = IGCTPrecond(net("ncsnpp"), net("ncsnpp", 32))
    return model, load("igct_ncsnpp", model)


@pytest.mark.parametrize("form", ["train", "eval"])
def test_igct_networks(igct_case, form):
    model, g = igct_case
    denoised = model.denoise(g["x"], g["sigma"], g["labels"], g["w_embed"], form=form)
    assert relative(denoised, g[f"denoise_{form}"]) < TOLERANCE
    noised = model.noise(g["x"].clamp(-1, 1), g["sigma"], g["labels"], form=form)
    assert relative(noised, g[f"noise_{form}"]) < TOLERANCE


def test_guidance_embedding(igct_case):
    _, g = igct_case
    # Equal bit for bit on the CPU that gave the numbers; other CPUs round sines differently.
    assert relative(embed_guidance(g["w"], 32), g["w_embed"]) < TOLERANCE


@pytest.mark.parametrize(("levels", "name"), [((80.0,), "1step"), ((80.0, 0.821), "2step")])
def test_igct_samples(igct_case, levels, name):
    model, g = igct_case
    w_embed = embed_guidance(g["w"], 32)
    draws = iter([g["latents"], g["mid_noise"]])
    samples = sample_consistency(
        lambda x, sigma: model.denoise(x, sigma, g["labels"], w_embed, form="eval"),
        levels,
        lambda: next(draws),
        clamp=True,
    )
    assert relative(samples, g[f"sample_{name}"]) < TOLERANCE


def test_igct_inversion_and_editing(igct_case):
    model, g = igct_case
    low, high = torch.tensor(0.002), torch.tensor(80.0)
    latent = model.noise(g["image"], low, g["labels"], form="eval")
    assert relative(latent, g["latent"]) < TOLERANCE
    off = embed_guidance(torch.zeros(len(latent)), 32)
    recon = model.denoise(latent, high, g["labels"], off, form="eval").clamp(-1, 1)
    assert relative(recon, g["recon"]) < TOLERANCE
    guided = embed_guidance(g["w"], 32)
    edit = model.denoise(latent, high, g["edit_labels"], guided, form="eval").clamp(-1, 1)
    assert relative(edit, g["edit"]) < TOLERANCE
