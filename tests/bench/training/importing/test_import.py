"""Golden networks in the published format, through the command line, to the golden outputs."""

import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.system.files import sha256
from bench.training.card import WEIGHTS, RunCard, differences, method_class, read_card
from bench.training.checkpoint import load_into, load_weights
from methods import METHODS
from methods.spec import DataSpec
from tests.bench.helpers import bench, contents, sets, tiny_card
from tests.bench.training.importing.official import (
    golden_numbers,
    golden_weights,
    network,
    write_golden,
    write_official,
)
from tests.methods.nets.golden import relative

# As in the tests of the networks: an independent implementation differs by 1e-6.
TOLERANCE = 1e-5
GOLDEN = DataSpec("golden16", (3, 16, 16), 10)


@pytest.fixture(autouse=True)
def _no_grad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        yield
    assert not (tmp_path / "canary").exists()


def run_import(path, *more, name="taken"):
    return bench("import", path, "--as", name, "-d", "golden16", *more)


def imported(path, *more):
    """The card and the networks of a file imported as a run."""
    ran = run_import(path, *more)
    assert ran.code == 0, ran.err
    folder = path.parent / "results/default/runs/taken"
    card = read_card(folder)
    cls = method_class(card.method)
    nets = cls(cls.config_type.model_validate(card.config), GOLDEN).build()
    load_into(nets, load_weights(folder / WEIGHTS), folder)
    return card, nets.eval()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("arch", ["ncsnpp", "ddpmpp"])
def test_edm(tmp_path, arch, protocol):
    name = f"edm_{arch}"
    path = write_golden(tmp_path / "net.pkl", name, "EDMPrecond", protocol=protocol)
    card, nets = imported(path)
    g = golden_numbers(name)
    assert relative(nets(g["x"], g["sigma"], g["labels"]), g["out_cond"]) < TOLERANCE
    null = torch.zeros_like(g["labels"])
    assert relative(nets(g["x"], g["sigma"], null), g["out_uncond"]) < TOLERANCE
    assert (card.method, card.dataset, card.train, card.data_hash) == ("edm", "golden16", None, "")
    assert card.config["net"]["arch"] == arch
    assert card.config["null_label"] is False
    assert card.config["sigma_min"] == 0.002
    assert card.init_checkpoint == sha256(path)
    assert card.provenance["imported_file"] == "net.pkl"
    assert card.provenance["imported_class"] == "EDMPrecond"
    assert card.provenance["imported_key"] == "ema"


def test_igct(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "igct_ncsnpp", "IGCTPrecond")
    card, nets = imported(path)
    g = golden_numbers("igct_ncsnpp")
    for form in ("train", "eval"):
        denoised = nets.denoise(g["x"], g["sigma"], g["labels"], g["w_embed"], form=form)
        assert relative(denoised, g[f"denoise_{form}"]) < TOLERANCE
        noised = nets.noise(g["x"].clamp(-1, 1), g["sigma"], g["labels"], form=form)
        assert relative(noised, g[f"noise_{form}"]) < TOLERANCE
    assert (card.method, card.config["guidance_dim"]) == ("igct", 32)


def test_ct(tmp_path):
    # The golden network takes guidance and ct's do not: one sample's guidance, folded into a bias.
    weights, g = golden_weights("ecm_ncsnpp"), golden_numbers("ecm_ncsnpp")
    layer, bias = weights.pop("model.map_w_embed.weight"), weights.pop("model.map_w_embed.bias")
    weights["model.map_label.bias"] += layer @ g["w_embed"][0] + bias
    net = network(weights, "ECMPrecond")
    net.sigma_min = 0.003
    _, nets = imported(write_official(tmp_path / "net.pkl", {"ema": net}))
    inputs = g["x"][:1], g["sigma"][:1], g["labels"][:1]
    for form in ("train", "eval"):
        assert relative(nets(*inputs, form=form), g[f"out_{form}"][:1]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "sigma_min"), [("cd_ncsnpp", 0.002), ("cd_adm", 0.002), ("ecm_ncsnpp", 0.003)]
)
def test_guided_cd(tmp_path, name, sigma_min):
    net = network(golden_weights(name), "CDPrecond")
    net.sigma_min = sigma_min
    card, nets = imported(write_official(tmp_path / "net.pkl", {"ema": net}))
    g = golden_numbers(name)
    out = nets(g["x"], g["sigma"], g["labels"], g["w_embed"], form="eval")
    assert relative(out, g["out_eval"]) < TOLERANCE
    assert card.method == "guided-cd"


def test_missing_method_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(METHODS, "guided-cd", raising=False)
    path = write_golden(tmp_path / "net.pkl", "cd_ncsnpp", "CDPrecond")
    ran = run_import(path)
    assert ran.code == 2
    assert "Unknown method 'guided-cd'" in ran.err


def with_metadata(state):
    """As `Module.state_dict` gives it."""
    ordered = OrderedDict(state)
    ordered._metadata = OrderedDict({"": {"version": 1}})
    return ordered


STATE_DICTS = {
    "zip.pt": lambda state, path: torch.save(state, path),
    "with-metadata.pt": lambda state, path: torch.save(with_metadata(state), path),
    "under-a-key.pth": lambda state, path: torch.save({"step": 3, "ema": state}, path),
    "legacy.pt": lambda s, path: torch.save(s, path, _use_new_zipfile_serialization=False),
    "plain.safetensors": lambda state, path: save_file(state, path),
    "empty-ema.pt": lambda state, path: torch.save({"ema": None, "net": state}, path),
    "ddp.pt": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "half.safetensors": lambda s, path: save_file({k: v.half() for k, v in s.items()}, path),
    "double.pt": lambda s, path: torch.save({k: v.double() for k, v in s.items()}, path),
    "channels-last.pt": lambda s, path: torch.save(
        {
            k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in s.items()
        },
        path,
    ),
    "parameters.pt": lambda s, path: torch.save(
        {k: torch.nn.Parameter(v) for k, v in s.items()}, path
    ),
    "pickle.pkl": lambda state, path: write_official(path, {"net": state}),
}  # fmt: skip


@pytest.mark.parametrize("file", STATE_DICTS)
def test_state_dicts_of_every_format_are_imported(tmp_path, file):
    # Golden weights are exact in float16.
    STATE_DICTS[file](golden_weights("edm_ddpmpp"), tmp_path / file)
    _, nets = imported(tmp_path / file, "--method", "edm")
    g = golden_numbers("edm_ddpmpp")
    assert relative(nets(g["x"], g["sigma"], g["labels"]), g["out_cond"]) < TOLERANCE


def test_method_of_a_state_dict_is_inferred_from_its_names(tmp_path):
    save_file(golden_weights("igct_ncsnpp"), tmp_path / "igct.safetensors")
    assert "method igct" in run_import(tmp_path / "igct.safetensors", "--dry-run").out
    weights = golden_weights("edm_ddpmpp")
    save_file(weights, tmp_path / "net.safetensors")
    ran = run_import(tmp_path / "net.safetensors", "--dry-run")
    assert ran.code == 2
    assert "name it with --method" in ran.err
    weights["model.map_augment.weight"] = torch.zeros(8, 9)
    save_file(weights, tmp_path / "net.safetensors")
    ran = run_import(tmp_path / "net.safetensors", "--dry-run")
    assert "method edm" in ran.out
    assert "9 augmentation labels" in ran.out


@pytest.mark.parametrize("name", ["edm_ddpmpp", "edm_ncsnpp"])
def test_unconditional_networks_are_imported(tmp_path, name):
    weights = golden_weights(name)
    weights = {k: v for k, v in weights.items() if "map_label" not in k}
    arguments = {"label_dim": 0, "img_resolution": 16}
    path = write_official(tmp_path / "u.pkl", {"ema": network(weights, "EDMPrecond", **arguments)})
    ran = run_import(path)
    assert ran.code == 2
    assert "data set of an unconditional network" in ran.err
    ran = bench("import", path, "--as", "u", "-d", "digits")
    assert ran.code == 2
    assert "(3, 16, 16)" in ran.err
    weights["model.map_label.weight"] = torch.zeros(weights["model.map_layer0.weight"].shape[1], 10)
    weights["model.map_label.bias"] = torch.zeros(len(weights["model.map_label.weight"]))
    save_file(weights, tmp_path / "c.safetensors")
    _, blind = imported(tmp_path / "c.safetensors", "-m", "edm")
    cls = method_class("edm")
    card = read_card(tmp_path / "results/default/runs/taken")
    config = card.config | {"net": card.config["net"] | {"conditional": False}}
    net = cls(cls.config_type.model_validate(config), GOLDEN).build()
    load_into(net, {k: v for k, v in weights.items() if "map_label" not in k}, "u")
    g = golden_numbers(name)
    inputs = g["x"], g["sigma"], g["labels"]
    assert torch.equal(net(*inputs), blind(*inputs))


def test_arguments_in_the_file_add_what_shapes_do_not_show(tmp_path):
    path = write_golden(
        tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond",
        dropout=0.13, label_dropout=0.1, img_resolution=16, img_channels=3, label_dim=10,
        model_type="SongUNet", model_channels=8, channel_mult=[1, 2, 2], num_blocks=1,
        attn_resolutions=[8], encoder_type="residual", embedding_type="fourier",
        channel_mult_noise=2, resample_filter=[1, 3, 3, 1],
    )  # fmt: skip
    card, _ = imported(path)
    assert card.config["net"]["dropout"] == 0.13
    assert card.config["label_dropout"] == 0.1
    assert card.config["null_label"] is True


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"label_dim": 100}, "label_dim is 100 there, 10 by the parameters"),
        ({"channel_mult": [2, 2, 2]}, "channel_mult is [2, 2, 2] there, [1, 2, 2]"),
        ({"attn_resolutions": [16]}, "attn_resolutions are [16] there, [8]"),
        ({"encoder_type": "standard"}, "encoder_type is 'standard' there, 'residual'"),
        ({"sigma_max": 0.001}, "not valid settings of edm"),
    ],
)
def test_contradicting_arguments_are_refused(tmp_path, argument, message):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond", **argument)
    ran = run_import(path)
    assert ran.code == 1
    assert message in ran.err


def test_dry_run_prints_everything_and_writes_nothing(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    ran = run_import(path, "--dry-run")
    assert ran.code == 0
    count = sum(v.numel() for k, v in golden_weights("edm_ncsnpp").items()
                if "resample_filter" not in k and "freqs" not in k)  # fmt: skip
    tensors = len(golden_weights("edm_ncsnpp"))
    for said in (
        "class EDMPrecond under 'ema'", sha256(path), "method edm, data set golden16",
        "ncsnpp, 8 channels x [1, 2, 2], 1 block, attention at [8], images (3, 16, 16), 10 cl",
        f"{count:,} parameters; all {tensors} tensors match", "--null-checkpoint",
        "Nothing was written",
    ):  # fmt: skip
        assert said in ran.out
    assert list(contents(tmp_path)) == ["net.pkl"]


def test_repeated_import_changes_nothing_and_another_is_refused(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    assert run_import(path).code == 0
    before = contents(tmp_path)
    shutil.copy(path, tmp_path / "renamed.pkl")
    ran = run_import(tmp_path / "renamed.pkl")
    assert (ran.code, "Already imported" in ran.out) == (0, True)
    (tmp_path / "renamed.pkl").unlink()
    assert contents(tmp_path) == before
    other = write_golden(tmp_path / "other.pkl", "edm_ddpmpp", "EDMPrecond")
    ran = run_import(other)
    assert ran.code == 1
    assert "exists with other settings" in ran.err


def test_training_under_the_name_of_an_imported_run_is_refused(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    assert run_import(path).code == 0
    ran = bench("train", "-m", "edm", "-d", "modes1d", "--name", "taken")
    assert ran.code == 1
    assert "'taken' was imported from net.pkl and is not trained here" in ran.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.map_label.bias"), "missing (1): model.map_label.bias"),
        (lambda w: w.update({"model.extra.bias": torch.zeros(2)}), "left over (1): model.extra"),
        (lambda w: w.update({"model.map_label.bias": torch.zeros(2)}), "map_label.bias (2,) for"),
        (lambda w: w.update({f"model.extra.p{i}": torch.zeros(2) for i in range(30)}), "p26 ..."),
        (lambda w: w.update({"model.map_label.bias": torch.full((16,), torch.nan)}), "not finite"),
        (lambda w: w.update({"model.map_label.bias": torch.zeros(16).int()}), "has type int32"),
        (lambda w: w.pop("model.enc.16x16_conv.weight"), "none of the U-Nets"),
        (lambda w: w.pop("model.enc.8x8_block0.conv1.weight"), "no levels that halve"),
        (lambda w: w.update({"model.map_layer0.weight": torch.zeros(2, 4)}), "no multiples"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("model.")], "is empty|no network"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    weights = golden_weights("edm_ncsnpp")
    change(weights)
    weights = weights or {"other": torch.zeros(1)}
    save_file(weights, tmp_path / "net.safetensors")
    ran = run_import(tmp_path / "net.safetensors", "-m", "edm")
    assert ran.code == 1
    assert any(part in ran.err for part in message.split("|"))
    assert not (tmp_path / "results").exists()


def test_null_label_option_overrides_the_file(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    card, _ = imported(path, "--null-label")
    assert card.config["null_label"] is True
    assert card.config["label_dropout"] > 0
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond", label_dropout=0.1)
    ran = bench("import", path, "--as", "other", "-d", "golden16", "--no-null-label")
    assert ran.code == 0, ran.err
    card = read_card(tmp_path / "results/default/runs/other")
    assert card.config["null_label"] is False


def test_unknown_classes_need_a_method(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "OtherPrecond")
    ran = run_import(path)
    assert ran.code == 2
    assert "class 'OtherPrecond'" in ran.err
    assert run_import(path, "-m", "edm", "--dry-run").code == 0


def test_data_set_is_inferred_from_size_or_must_be_named(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    ran = bench("import", path, "--as", "x")
    assert ran.code == 2
    assert "name it with --dataset" in ran.err
    assert bench("import", path, "--as", "x", "-d", "cifar10").code == 2


def test_card_without_a_later_setting_is_the_same_run():
    card = tiny_card("edm", "digits")
    tree = card.model_dump(mode="json")
    del tree["config"]["null_label"], tree["config"]["net"]["conditional"]
    old = RunCard.model_validate(tree)
    assert differences(old, card) == ""
    other = tiny_card("edm", "digits", "null_label=false")
    assert differences(old, other) == "config.null_label is True there, False here"


def test_imported_run_can_be_sampled_without_its_data_set(tmp_path):
    imported(write_golden(tmp_path / "net.pkl", "igct_ncsnpp", "IGCTPrecond"))
    ran = bench("sample", "--run", "taken", "-g", 3, "-n", 4, "-c", 7, "-o", "out.npz")
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "out.npz") as file:
        assert file["arr_0"].shape == (4, 16, 16, 3)
        assert file["arr_1"].tolist() == [7] * 4
    ran = bench("sweep", "-m", "igct")
    assert ran.code != 0
    assert "its data set 'golden16' is not registered" in ran.out + ran.err


@pytest.mark.parametrize(("scale", "recorded"), [(0.02, 0.02), (16.0, 16.0), (1.0, None)])
def test_card_records_the_scale_of_the_noise_features_in_the_file(tmp_path, scale, recorded):
    weights = golden_weights("ecm_ncsnpp")
    weights = {k: v for k, v in weights.items() if "map_w_embed" not in k}
    freqs = torch.linspace(0.5, 1.5, len(weights["model.map_noise.freqs"])) * scale
    weights["model.map_noise.freqs"] = freqs
    card, nets = imported(
        write_official(tmp_path / "net.pkl", {"ema": network(weights, "ECMPrecond")})
    )
    measured = float(freqs.square().mean().sqrt())
    assert card.config["net"]["fourier_scale"] == pytest.approx(recorded or measured, rel=1e-2)
    assert torch.equal(nets.model.map_noise.freqs, freqs)
    assert (card.method, card.config["clamp_between"]) == ("ct", False)


def test_settings_of_the_sampler_are_given_with_set(tmp_path):
    path = write_golden(tmp_path / "net.pkl", "edm_ncsnpp", "EDMPrecond")
    more = ("s_churn=40", "s_min=0.05", "s_max=50", "s_noise=1.003")
    card, _ = imported(path, *sets(*more))
    names = ("s_churn", "s_min", "s_max", "s_noise")
    assert [card.config[name] for name in names] == [40, 0.05, 50, 1.003]
    for wrong, message in (
        ("s_chrun=40", "Did you mean 's_churn'"),
        ("net.channels=3", "Unknown setting"),
        ("s_churn=-1", "--set are not valid settings of edm: s_churn"),
    ):
        ran = bench("import", path, "--as", "y", "-d", "golden16", "--set", wrong)
        assert ran.code in (1, 2)
        assert message in ran.err


@pytest.mark.parametrize("more", [(), ("--method", "edm")])
def test_unknown_names_lead_to_the_option_for_own_models(tmp_path, more):
    torch.save({"net.0.weight": torch.ones(2, 2), "net.0.bias": torch.ones(2)}, tmp_path / "my.pt")
    ran = bench("import", tmp_path / "my.pt", "--as", "mine", "-d", "digits", *more)
    assert ran.code == 1
    assert "its tensors are named net.0.weight, net.0.bias ..." in ran.err
    assert "bench sweep --model FILE:NAME (docs/tutorials/own-model.md)" in ran.err
