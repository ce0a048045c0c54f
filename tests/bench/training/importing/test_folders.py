"""Folders of diffusers, imported and swept through the command line, offline."""

import json
import re
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.card import DATA_FOLDER_VARIABLE
from bench.experiment.rows import read_rows
from bench.report import build
from bench.system.offline import no_network
from bench.training.card import WEIGHTS, read_card
from bench.training.checkpoint import load_weights
from bench.training.importing.source import read_source
from tests.bench.data.makers import image_tree, write_folder
from tests.bench.data.vae import tiny_vae
from tests.bench.helpers import FIGURES, bench, sets

diffusers = pytest.importorskip("diffusers")

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
DIT = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 1, "out_channels": 2,
    "num_layers": 2, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10,
}  # fmt: skip
UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1,
    "norm_num_groups": 4, "num_class_embeds": 11,
}  # fmt: skip
QUICK = ("-n", "4", "--steps", "2", "--metric", "saturation", "--extractor", "identity")
EPS = sets("prediction=eps")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with torch.no_grad(), no_network():
        yield
    assert not (tmp_path / "canary").exists()


def network(kind="DiTTransformer2DModel", **arguments):
    """A random network of diffusers for digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(diffusers, kind)(**(UNET if kind == "UNet2DModel" else DIT) | arguments)
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def saved(folder, net=None, **options):
    (net or network()).save_pretrained(folder, **options)
    return folder


def pipeline(folder, net=None, scheduler=None, vae=None):
    """The folder of a pipeline, as save_pretrained writes it."""
    net = net or network()
    part = "unet" if isinstance(net, diffusers.UNet2DModel) else "transformer"
    saved(folder / part, net)
    (scheduler or diffusers.DDIMScheduler(clip_sample=False)).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline", "_diffusers_version": "0.36.0",
        part: ["diffusers", type(net).__name__], "scheduler": ["diffusers", "DDIMScheduler"],
    }  # fmt: skip
    if vae is not None:
        shutil.copytree(vae, folder / "vae")
        index["vae"] = ["diffusers", "AutoencoderKL"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def imported(path, *more, name="taken", dataset="digits"):
    """What the command prints, and the card and weights of the run."""
    ran = bench("import", path, "--as", name, "-d", dataset, *more)
    assert ran.code == 0, ran.err
    folder = path.resolve()
    while not (folder / "results").exists():
        folder = folder.parent
    run = folder / "results/default/runs" / name
    return ran.out + ran.err, read_card(run), load_weights(run / WEIGHTS)


def swept(tmp_path, *more):
    ran = bench("sweep", "-g", "1,3", *QUICK, *more)
    assert ran.code == 0, ran.err
    found = read_rows(tmp_path / "results/default/cells")
    return {(r.run, r.rule, r.guidance): r for r in found if r.method != "real"}


def edit(path, change):
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def equal(weights, net):
    state = net.state_dict()
    return weights.keys() == state.keys() and all(torch.equal(weights[k], state[k]) for k in state)


@pytest.mark.parametrize("draw", FIGURES)
def test_pipeline_with_its_decoder_is_swept_under_five_rules(tmp_path, monkeypatch, draw):
    monkeypatch.setattr(build, "draw", draw)
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path / "data"))
    tiny_vae(tmp_path / "saved-vae", scaling_factor=0.5)
    write_folder(tmp_path / "photos", image_tree(8, shape=(3, 16, 16)))
    assert bench("data", "prepare", "photos").code == 0
    net = network(in_channels=4, out_channels=8, num_embeds_ada_norm=3)
    folder = pipeline(tmp_path / "dit", net, vae=tmp_path / "saved-vae")
    out, card, _ = imported(folder, dataset="photos")
    assert "decoder: vae, images (3, 16, 16)" in out
    assert "prediction: eps, noise levels 0.01 to 157.4, times interpolated" in out
    assert (card.method, card.shape, card.steps) == ("diffusers", (4, 8, 8), (32,))
    assert (card.config["decoder"], card.config["clamp"]) == ("vae", False)
    assert (card.config["channels"], card.config["timesteps"]) == ("all", "interpolated")
    rules = ["cfg", "interval", "apg", "rescale", "cfgpp"]
    rows = swept(tmp_path, *(part for rule in rules for part in ("--rule", rule)))
    assert {row.status for row in rows.values()} == {"ok"}
    assert {rule for _, rule, _ in rows} == {"", *rules[1:]}
    assert rows["taken", "", 3].nfe == 6
    assert rows["taken", "", 3].decoder_seconds_per_image > 0
    ran = bench("report")
    assert ran.code == 0, ran.err
    ran = bench("sample", "-n", 2, "--steps", 2, "-g", 3, "-o", "images.npz", "--run", "taken")
    assert ran.code == 0, ran.err


def test_own_times_and_three_channels_are_settings(tmp_path):
    folder = pipeline(tmp_path / "dit")
    out, card, _ = imported(folder, *sets("times=own", "channels=3", "timesteps=nearest"))
    assert "noise levels of the scheduler's times" in out
    assert [card.config[k] for k in ("times", "channels", "timesteps")] == ["own", 3, "nearest"]
    rows = swept(tmp_path, "--sampler", "ddim")
    assert {(key[2], row.status, row.nfe) for key, row in rows.items()} == {
        (1, "ok", 2),
        (3, "ok", 4),
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, ["clip_sample = True"]),  # diffusers' default
        ({"clip_sample": False}, []),
        (
            {"clip_sample": False, "thresholding": True, "set_alpha_to_one": False},
            ["thresholding = True", "set_alpha_to_one = False"],
        ),
    ],
)
def test_settings_of_the_scheduler_that_are_not_applied_are_named(tmp_path, given, named):
    folder = pipeline(tmp_path / "dit", scheduler=diffusers.DDIMScheduler(**given))
    out, _, _ = imported(folder)
    assert re.findall(r"Not applied: (.*) of the scheduler; ", out) == named
    multistep = diffusers.DPMSolverMultistepScheduler()  # it has none of them
    out, _, _ = imported(pipeline(tmp_path / "other", scheduler=multistep), name="other")
    assert "Not applied" not in out


def test_unet_is_guided_by_the_embedding_that_no_class_of_the_data_has(tmp_path):
    scheduler = diffusers.DDPMScheduler(
        prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"
    )
    folder = pipeline(tmp_path / "unet", network("UNet2DModel"), scheduler)
    out, card, weights = imported(folder)
    assert "10 classes" in out
    assert "prediction: v, noise levels 0.006427 to 160" in out
    assert (card.config["null_label"], card.config["prediction"]) == (True, "v")
    assert equal(weights, network("UNet2DModel"))
    assert {row.status for row in swept(tmp_path).values()} == {"ok"}


def test_unet_without_null_label_is_guided_by_an_unconditional_one(tmp_path):
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="linear")
    every = pipeline(tmp_path / "every", network("UNet2DModel", num_class_embeds=10), scheduler)
    none = pipeline(tmp_path / "none", network("UNet2DModel", num_class_embeds=None), scheduler)
    out, card, _ = imported(every, name="every")
    assert "cannot be guided by itself" in out
    assert card.config["null_label"] is False
    out, _, _ = imported(none, name="none")
    assert "unconditional" in out
    rows = swept(tmp_path, "--run", "every")
    assert {key[2]: row.status for key, row in rows.items()} == {1: "ok", 3: "skip"}
    shutil.rmtree(tmp_path / "results/default/cells")
    rows = swept(tmp_path, "--run", "every", "--null-checkpoint", "none")
    assert rows["every", "", 3].status == "ok"


def test_null_label_is_said_where_the_data_set_is_not_known(tmp_path):
    folder = pipeline(tmp_path / "unet", network("UNet2DModel"))
    _, card, _ = imported(folder, name="a", dataset="unknown")
    assert (card.num_classes, card.config["null_label"]) == (11, False)
    _, card, _ = imported(folder, "--null-label", name="b", dataset="unknown")
    assert (card.num_classes, card.config["null_label"]) == (10, True)


def test_single_network_asks_what_it_predicts(tmp_path):
    folder = saved(tmp_path / "dit")
    ran = bench("import", folder, "--as", "t", "-d", "digits")
    assert ran.code == 2
    assert "dit has no scheduler: say what its network predicts" in ran.err
    assert "--set prediction=eps, v or sample" in ran.err
    _, card, weights = imported(
        folder, *sets("prediction=sample", "schedule.beta_schedule=scaled_linear")
    )
    assert card.config["prediction"] == "sample"
    assert card.config["schedule"]["beta_schedule"] == "scaled_linear"
    assert equal(weights, network())
    ran = bench("import", folder, "--as", "u", "-d", "digits", *EPS, *sets("schedule.beta=1"))
    assert ran.code == 1
    assert "The schedule of" in ran.err
    assert "beta" in ran.err


def test_part_of_a_pipeline_has_its_scheduler_and_licence(tmp_path):
    folder = pipeline(tmp_path / "dit", scheduler=diffusers.DDIMScheduler(beta_end=0.03))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    out, card, _ = imported(folder / "transformer")
    assert card.config["schedule"]["beta_end"] == 0.03
    assert "licence: cc-by-nc-4.0 (README.md)" in out


def test_older_class_name_and_older_names_of_attention_are_known(tmp_path):
    folder = pipeline(tmp_path / "dit")
    old = network("Transformer2DModel", norm_type="ada_norm_zero", attention_bias=True,
                  activation_fn="gelu-approximate", norm_elementwise_affine=False)  # fmt: skip
    saved(folder / "transformer", old)
    _, card, weights = imported(folder, name="a")
    assert card.provenance["imported_class"] == "Transformer2DModel"
    assert equal(weights, old)
    folder = pipeline(tmp_path / "unet", network("UNet2DModel"))
    file = folder / "unet" / WEIGHTS_FILE
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in load_file(file).items():
        for new, before in renamed.items():
            key = key.replace(f".{new}.", f".{before}.")
        state[key] = value
    assert len(state.keys() - load_file(file).keys()) == 4 * 8
    save_file(state, file)
    _, _, weights = imported(folder, name="b")
    assert equal(weights, network("UNet2DModel"))


@pytest.mark.parametrize("options", [{"max_shard_size": "20KB"}, {"variant": "fp16"}])
def test_weights_in_shards_or_of_a_variant(tmp_path, options):
    net = network()
    if "variant" in options:
        net = net.half()
    folder = saved(tmp_path / "dit", net, **options)
    assert not (folder / WEIGHTS_FILE).exists()
    _, _, weights = imported(folder, *EPS)
    assert equal(weights, net.float())


def bomb(path):
    """A pickle that leaves a trace if it is opened."""

    class Bomb:
        def __reduce__(self):
            return (open, ("canary", "w"))

    torch.save({"weights": Bomb()}, path)


def test_pickles_and_code_beside_the_weights_are_not_opened(tmp_path):
    folder = pipeline(tmp_path / "dit")
    trap = "open('canary', 'w')\n"
    for place in (folder, folder / "transformer"):
        bomb(place / "diffusion_pytorch_model.bin")
        for name in ("modeling.py", "pipeline.py", "transformer.py", "__init__.py"):
            (place / name).write_text(trap, encoding="utf-8")
    auto = {"AutoModel": "modeling.Model"}
    edit(folder / "transformer/config.json", lambda c: c.update(_auto_map=auto))
    _, _, weights = imported(folder)
    assert equal(weights, network())
    (folder / "transformer" / WEIGHTS_FILE).unlink()
    ran = bench("import", folder, "--as", "u", "-d", "digits")
    assert ran.code == 1
    assert "has no .safetensors file, and pickles (.bin) are not opened" in ran.err


def change_config(**values):
    return lambda folder: edit(folder / "transformer/config.json", lambda c: c.update(values))


def change_index(**values):
    return lambda folder: edit(folder / "model_index.json", lambda c: c.update(values))


def change_scheduler(**values):
    path = "scheduler/scheduler_config.json"
    return lambda folder: edit(folder / path, lambda c: c.update(values))


def change_weights(change):
    def changed(folder):
        file = folder / "transformer" / WEIGHTS_FILE
        state = load_file(file)
        change(state)
        save_file(state, file)

    return changed


def shards(**mapped):
    def changed(folder):
        (folder / "transformer" / WEIGHTS_FILE).unlink()
        index = folder / "transformer" / f"{WEIGHTS_FILE}.index.json"
        index.write_text(json.dumps(mapped), encoding="utf-8")

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_index(transformer=["my_module", "Mine"]), "my_module, whose code is not run"),
        (change_index(transformer=[None, None]), "has no transformer or unet, or both"),
        (change_index(unet=["diffusers", "UNet2DModel"]), "has no transformer or unet, or both"),
        (change_config(_class_name="FluxTransformer2DModel"), "class FluxTransformer2DModel, and"),
        (change_config(_class_name="os.system"), "networks with class labels are imported"),
        (change_config(_class_name=["x"]), "networks with class labels are imported"),
        (change_config(strange=3), "has strange, which DiTTransformer2DModel of diffusers"),
        (change_config(num_layers=900), "too few for 900 layers"),
        (change_config(num_layers=10**12), "num_layers"),
        (change_config(num_layers="two"), "num_layers"),
        (change_config(num_attention_heads=10**6), "do not fit"),
        (change_config(num_attention_heads=-1), "cannot build it"),
        (change_config(activation_fn="eval"), "cannot build it"),
        (change_config(dropout={"a": 1}), "invalid settings"),
        (change_config(sample_size=[8, 16]), "square images of a known size"),
        (change_config(sample_size=[[8], {}]), "square images of a known size"),
        (change_config(sample_size=None), "square images of a known size"),
        (change_config(out_channels=3), "it makes 3 channels of 1"),
        (change_config(norm_type="ada_norm"), "it takes no class labels (norm_type ada_norm,"),
        (change_config(num_embeds_ada_norm=4), "4 classes, and the data set 'digits'"),
        (change_scheduler(_class_name="FlowMatchEulerDiscreteScheduler"), "such as DDIMScheduler"),
        (change_scheduler(_class_name="__import__"), "such as DDIMScheduler"),
        (change_scheduler(prediction_type="flow_prediction"), "prediction_type flow_prediction"),
        (change_scheduler(trained_betas=[0.1, 0.0]), "does not grow from time to time"),
        (change_scheduler(trained_betas="abc"), "trained_betas"),
        (change_scheduler(num_train_timesteps=10**9), "num_train_timesteps"),
        (change_weights(lambda s: s.pop("proj_out_2.bias")), "missing (1): proj_out_2.bias"),
        (change_weights(lambda s: s.update(more=torch.ones(2))), "left over (1): more"),
        (change_weights(lambda s: s.update(more=torch.tensor(torch.nan))), "not finite"),
        (shards(weight_map={"a": "../x.safetensors"}), "names no .safetensors files of its folder"),
        (shards(weight_map={"a": "x.safetensors"}), "There is no file"),
        (shards(weight_map=3), "names no .safetensors files of its folder"),
        (lambda f: (f / "transformer/config.json").unlink(), "Cannot read"),
        (lambda f: (f / "model_index.json").write_text("[1]"), "is not a configuration"),
        (lambda f: (f / "model_index.json").unlink(), "has neither model_index.json nor config"),
    ],
)  # fmt: skip
def test_folders_that_are_not_supported_are_refused(tmp_path, change, message):
    folder = pipeline(tmp_path / "dit")
    change(folder)
    ran = bench("import", folder, "--as", "t", "-d", "digits")
    assert ran.code in (1, 2)
    assert message in ran.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (sets("sigma_max=500"), "noise levels from 0.0100013 to 157.407, got sigma_min"),
        (sets("noise=3"), "Unknown setting"),
        (("-m", "edm"), "is none of method edm"),
        (sets("prediction=flow"), "not valid settings of diffusers: prediction"),
    ],
)
def test_options_that_do_not_fit_a_folder_are_refused(tmp_path, more, message):
    ran = bench("import", pipeline(tmp_path / "dit"), "--as", "t", "-d", "digits", *more)
    assert ran.code in (1, 2)
    assert message in ran.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_embed_type": "timestep"}, "its classes are no table but timestep"),
        ({"time_embedding_type": "fourier"}, "its times are noise levels (fourier)"),
    ],
)
def test_unets_without_a_table_are_refused(tmp_path, change, message):
    folder = pipeline(tmp_path / "unet", network("UNet2DModel"))
    edit(folder / "unet/config.json", lambda c: c.update(change))
    ran = bench("import", folder, "--as", "t", "-d", "digits")
    assert ran.code == 1
    assert message in ran.err


def test_missing_diffusers_is_named(tmp_path, monkeypatch):
    folder = pipeline(tmp_path / "dit")
    imported(folder)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    ran = bench("import", folder, "--as", "t", "-d", "digits")
    assert ran.code == 2
    assert "it needs diffusers: pip install 'guidance-bench[diffusers]'" in ran.err
    rows = swept(tmp_path).values()
    assert {row.status for row in rows} == {"skip"}
    assert all("it needs diffusers" in row.reason for row in rows)
    ran = bench("sweep", "-g", "1", *QUICK, "--run", "taken", "--null-checkpoint", "taken")
    assert ran.code == 1
    assert "cannot be the unconditional branch of 'taken': it needs diffusers" in ran.err


def test_another_folder_under_the_same_name_is_refused(tmp_path):
    folder = pipeline(tmp_path / "dit")
    imported(folder)
    ran = bench("import", folder, "--as", "taken", "-d", "digits")
    assert "Already imported" in ran.out
    edit(folder / "transformer/config.json", lambda c: c.update(dropout=0.1))
    ran = bench("import", folder, "--as", "taken", "-d", "digits")
    assert ran.code == 1
    assert "exists with other settings" in ran.err
    assert "init_checkpoint" in ran.err


README = {
    "---\ntags:\n- x\nlicense: apache-2.0\n---\n": "apache-2.0 (README.md)",
    '---\nlicense: "mit"\n---\n# license: x': "mit (README.md)",
    "---\nlicense:\n- mit\n---\n": "mit (README.md)",
    "---\nlicense: other\nlicense_name: own-terms\n---\n": "own-terms (README.md)",
    "---\nlicense: other\n---\n": "other (README.md)",
    "# Model\nlicense: none\n": "not stated",
    "---\ntags: x\n---\nlicense: none\n": "not stated",
}


@pytest.mark.parametrize("text", README)
def test_licence_is_that_of_the_readme(tmp_path, text):
    folder = pipeline(tmp_path / "dit")
    (folder / "README.md").write_text(text, encoding="utf-8")
    out, card, _ = imported(folder)
    assert f"licence: {README[text]}" in out
    assert card.provenance["imported_licence"] == README[text]


def test_licence_of_a_file_is_what_it_states(tmp_path):
    state = network().state_dict()
    for name in ("a.pt", "b.pt"):
        torch.save({"ema": state, "license": "mit" if name == "a.pt" else 3}, tmp_path / name)
    save_file(state, tmp_path / "c.safetensors", metadata={"modelspec.license": "own terms"})
    want = {"a.pt": "mit (a.pt)", "b.pt": "", "c.safetensors": "own terms (c.safetensors)"}
    for name, licence in want.items():
        assert read_source(tmp_path / name).licence == licence


def test_licence_beside_the_folder_of_a_single_network_is_not_its_own(tmp_path):
    (tmp_path / "LICENSE").write_text("Another", encoding="utf-8")
    _, card, _ = imported(saved(tmp_path / "dit"), *EPS)
    assert card.provenance["imported_licence"] == "not stated"


def test_licence_is_the_first_line_of_its_file(tmp_path):
    folder = pipeline(tmp_path / "dit")
    (folder / "README.md").write_bytes(b"---\nlicense_\xff: \x1b[31m\n---")
    (folder / "LICENSE").write_text("\n  \x1b[31mMIT License\n\nCopyright", encoding="utf-8")
    out, card, _ = imported(folder)
    assert card.provenance["imported_licence"] == "\\x1b[31mMIT License (LICENSE)"
    assert "\x1b" not in out
