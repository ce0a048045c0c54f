"""Files of EDM2, DiT, SiT and REPA, imported and swept through the command line."""

import argparse
import shutil

import pytest
import torch
from safetensors.torch import save_file

from bench.data.find import find_dataset
from bench.experiment.rows import read_rows
from bench.training.card import WEIGHTS, method_class, read_card
from bench.training.checkpoint import load_into, load_weights
from methods.dit import DiT, DiTConfig, DiTNet
from methods.edm2 import EDM2, EDM2Config, EDM2Net
from methods.spec import DataSpec
from tests.bench.helpers import bench, randomised, sets
from tests.bench.training.importing.official import network, write_official
from tests.methods.nets.golden import FOLDER, relative
from tests.methods.nets.test_foreign import TOLERANCE, numbers

EDM2_SMALL = {
    "channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,),
    "channels_per_head": 8,
}  # fmt: skip
DIT_SMALL = {"patch": 2, "width": 32, "depth": 2, "heads": 4}
RULES = ("--rule", "cfg", "--rule", "interval", "--rule", "apg")
QUICK = ("-n", "4", "--steps", "2", "--metric", "saturation", "--extractor", "identity")


@pytest.fixture(autouse=True)
def _no_grad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        yield
    assert not (tmp_path / "canary").exists()


def imported(path, *more, spec=None, name="taken", dataset="digits"):
    """The card and the networks of a file imported as a run."""
    ran = bench("import", path, "--as", name, "-d", dataset, *more)
    assert ran.code == 0, ran.err
    folder = path.parent / "results/default/runs" / name
    card = read_card(folder)
    cls = method_class(card.method)
    spec = spec or find_dataset(dataset).spec
    nets = cls(cls.config_type.model_validate(card.config), spec).build()
    load_into(nets, load_weights(folder / WEIGHTS), folder)
    return card, nets.eval()


def edm2_file(path, conditional=True, **net):
    """A published-looking file of a random EDM2 network for digits."""
    config = EDM2Config(net=EDM2Net(**EDM2_SMALL | net, conditional=conditional))
    state = randomised(EDM2(config, find_dataset("digits").spec)).state_dict()
    root = network(
        {key: value.half() for key, value in state.items()}, "Precond",
        img_resolution=8, img_channels=1, label_dim=10 * conditional, model_channels=8,
        channel_mult=list(config.net.channel_mult), num_blocks=1, attn_resolutions=[4],
        channels_per_head=8,
    )  # fmt: skip
    return write_official(path, {"ema": root, "loss_fn": None, "dataset_kwargs": {}})


def dit_state(channels=1, classes=10, side=8, variance=True, **net):
    config = DiTConfig(net=DiTNet(**DIT_SMALL | net, variance=variance))
    return randomised(DiT(config, DataSpec("d", (channels, side, side), classes))).state_dict()


def test_published_structure_of_edm2_gives_the_golden_outputs(tmp_path):
    path = tmp_path / "edm2.pkl"
    shutil.copy(FOLDER / "edm2_tiny.pkl", path)
    spec = DataSpec("golden16", (4, 16, 16), 10)
    card, nets = imported(path, spec=spec, dataset="golden16")
    g = numbers("edm2")
    assert relative(nets(g["x"], g["sigma"], g["labels"]), g["out_cond"]) < TOLERANCE
    assert relative(nets(g["x"], g["sigma"], 0 * g["labels"]), g["out_null"]) < TOLERANCE
    assert (card.method, card.steps, card.shape) == ("edm2", (32,), (4, 16, 16))
    assert card.config["net"] == {
        "channels": 8, "channel_mult": [1, 2, 3], "num_blocks": 2, "attn_resolutions": [8],
        "channels_per_head": 8, "conditional": True,
    }  # fmt: skip
    assert (card.config["null_label"], card.config["sigma_data"]) == (False, 0.5)
    assert (card.config["decoder"], card.config["clamp"]) == ("edm2-vae", False)


def test_latents_are_not_swept_without_their_decoder(tmp_path):
    shutil.copy(FOLDER / "edm2_tiny.pkl", tmp_path / "edm2.pkl")
    ran = bench("import", tmp_path / "edm2.pkl", "--as", "taken", "-d", "golden16")
    assert "Pixels need the decoder 'edm2-vae': import it again with --decoder" in ran.out
    ran = bench("sample", "--run", "taken", "-n", 2, "-o", "out.npz")
    assert ran.code != 0
    assert "pixels need the decoder 'edm2-vae'" in ran.err
    card, _ = imported(
        tmp_path / "edm2.pkl", *sets("decoder="), name="pixels", dataset="golden16",
        spec=DataSpec("golden16", (4, 16, 16), 10),
    )  # fmt: skip
    assert (card.config["decoder"], card.config["clamp"]) == ("", True)


def swept(tmp_path, *more):
    """The rows of a sweep of two scales, by run, rule and scale; fails if it failed."""
    ran = bench("sweep", "-g", "1,2", *RULES, *QUICK, *more)
    assert ran.code == 0, ran.err
    found = read_rows(tmp_path / "results/default/cells")
    return {(r.run, r.rule, r.guidance): r for r in found if r.method != "real"}


def test_edm2_is_guided_by_its_unconditional_network_under_every_rule(tmp_path):
    imported(edm2_file(tmp_path / "own.pkl"), name="own")
    imported(edm2_file(tmp_path / "null.pkl", False, channel_mult=(1, 1)), name="null")
    rows = swept(tmp_path, "--run", "own", "--null-checkpoint", "null")
    assert {key: row.status for key, row in rows.items()} == {
        ("own", "", 1.0): "ok",
        ("own", "", 2.0): "ok",
        ("own", "interval", 2.0): "ok",
        ("own", "apg", 2.0): "ok",
    }
    assert (rows["own", "", 1.0].nfe, rows["own", "", 2.0].nfe) == (3, 6)
    assert 3 < rows["own", "", 2.0].nfe_weighted < 6
    assert rows["own", "", 2.0].null_checkpoint
    ran = bench("report")
    assert ran.code == 0, ran.err


def test_edm2_with_a_weaker_network_and_without_a_second_one(tmp_path):
    imported(edm2_file(tmp_path / "own.pkl"), name="own")
    imported(edm2_file(tmp_path / "weak.pkl", channel_mult=(1, 1)), name="weak")
    rows = swept(tmp_path, "--run", "own", "--rule", "autoguidance", "--weak-checkpoint", "weak")
    assert rows["own", "autoguidance", 2.0].status == "ok"
    assert rows["own", "autoguidance", 2.0].weak_checkpoint
    assert rows["own", "", 2.0].status == "skip"
    assert "--null-checkpoint" in rows["own", "", 2.0].reason


STATES = {
    "bare.pt": lambda state, path: torch.save(state, path),
    "plain.safetensors": lambda state, path: save_file(state, path),
    "training.pt": lambda state, path: torch.save(
        {
            "model": {k: 0 * v for k, v in state.items()},
            "ema": state,
            "opt": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
            "args": argparse.Namespace(model="DiT-S/2", image_size=256),
        },
        path,
    ),
}


@pytest.mark.parametrize("file", STATES)
def test_dit_is_imported_from_every_kind_of_file(tmp_path, file):
    state = dit_state()
    STATES[file](state, tmp_path / file)
    card, nets = imported(tmp_path / file, "--method", "dit", *sets("net.heads=4"))
    assert all(torch.equal(value, state[key]) for key, value in nets.state_dict().items())
    assert card.config["net"] == DIT_SMALL | {"variance": True}
    assert (card.config["channels"], card.config["null_label"]) == (3, True)
    assert (card.config["decoder"], card.config["clamp"]) == ("", True)


@pytest.mark.parametrize(
    ("method", "more", "nfe"),
    [
        ("dit", (), 6),
        pytest.param("dit", ("times=own",), 6, marks=pytest.mark.long),
        ("sit", ("time=sit",), 6),
    ],
)
def test_transformers_are_swept_under_every_rule(tmp_path, method, more, nfe):
    torch.save(dit_state(), tmp_path / "net.pt")
    imported(tmp_path / "net.pt", "--method", method, *sets("net.heads=4", *more))
    rows = swept(tmp_path)
    assert set(rows) == {
        ("taken", rule, g) for rule, g in (("", 1), ("", 2), ("interval", 2), ("apg", 2))
    }
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["taken", "", 2.0].nfe == nfe


def test_own_times_of_sit_need_eulers_steps(tmp_path):
    torch.save(dit_state(), tmp_path / "net.pt")
    imported(tmp_path / "net.pt", "-m", "sit", *sets("net.heads=4", "time=sit", "times=own"))
    rows = swept(tmp_path)
    assert {row.status for row in rows.values()} == {"skip"}
    shutil.rmtree(tmp_path / "results/default/cells")
    rows = swept(tmp_path, "--sampler", "ddim")
    assert {(key[1:], row.status, row.nfe) for key, row in rows.items()} == {
        (("", 1.0), "ok", 2),
        (("", 2.0), "ok", 4),
        (("apg", 2.0), "ok", 4),
        (("interval", 2.0), "ok", 3),
    }


def repa_files():
    newer = dit_state(channels=4, classes=1000, variance=False)
    newer |= {f"projectors.0.{i}.weight": torch.ones(3, 3) for i in (0, 2, 4)}
    older = {k.replace("blocks.1.", "decoder_blocks.0."): v for k, v in newer.items()}
    return {"newer": newer, "older": older}


@pytest.mark.parametrize("names", ["newer", "older"])
def test_projectors_of_repa_are_dropped_and_show_its_direction_of_time(tmp_path, names):
    torch.save(repa_files()[names], tmp_path / "last.pt")
    ran = bench("import", tmp_path / "last.pt", "--as", "r", "-d", "x", *sets("net.heads=4"))
    assert ran.code == 0, ran.err
    assert "Not imported beside the network: 3 tensors (projectors.0.0.weight" in ran.out
    card = read_card(tmp_path / "results/default/runs/r")
    assert (card.method, card.config["time"], card.config["channels"]) == ("sit", "repa", "all")
    assert card.config["net"]["variance"] is False
    assert card.config["decoder"] == "sd-vae"
    want = {k: v for k, v in repa_files()["newer"].items() if "projectors" not in k}
    got = load_weights(tmp_path / "results/default/runs/r" / WEIGHTS)
    assert got.keys() == want.keys()
    assert all(torch.equal(value, want[key]) for key, value in got.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "add --method dit or --method sit"),
        (("-m", "dit"), "add --set net.heads=4"),
        (("-m", "dit", *sets("net.heads=5")), "a width of 32 does not divide into 5 heads"),
        (("-m", "dit", *sets("net.heads=x")), "invalid settings: heads"),
        (("-m", "sit", *sets("net.heads=4")), "add --set time=sit"),
        (("-m", "sit", *sets("net.heads=4", "time=dit")), "not valid settings of sit: time"),
        (("-m", "dit", *sets("net.heads=4", "time=sit")), "Unknown setting"),
        (("-m", "dit", *sets("net.heads=4", "sigma_min=0.001")), "from 0.010001 to 157.4073"),
        (("-m", "edm", *sets("net.heads=4")), "is none of method edm: name another --method"),
    ],
)
def test_what_a_transformer_does_not_show_is_asked_for(tmp_path, more, message):
    torch.save(dit_state(), tmp_path / "net.pt")
    ran = bench("import", tmp_path / "net.pt", "--as", "t", "-d", "digits", *more)
    assert ran.code in (1, 2)
    assert message in ran.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pos_embed"), "no transformer of DiT or SiT: it has no pos_embed"),
        (lambda s: s.update(pos_embed=torch.zeros(1, 15, 32)), "15 tokens"),
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "left over"),
        (lambda s: s.pop("blocks.1.mlp.fc2.bias"), "missing (1): blocks.1.mlp.fc2.bias"),
        (lambda s: s.update({"blocks.0.attn.q_norm.weight": torch.zeros(8)}), "q_norm"),
        (lambda s: s.update(extra=torch.full((2,), torch.nan)), "not finite"),
    ],
)
def test_transformers_that_do_not_fit_are_refused(tmp_path, change, message):
    state = dit_state()
    change(state)
    torch.save(state, tmp_path / "net.pt")
    ran = bench("import", tmp_path / "net.pt", "--as", "t", "-d", "digits", "-m", "dit",
                *sets("net.heads=4"))  # fmt: skip
    assert ran.code == 1
    assert message in ran.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_dim": 100}, "label_dim is 100 there, 10 by the parameters"),
        ({"label_balance": 0.3}, "label_balance is 0.3 there, 0.5"),
        ({"clip_act": 1}, "clip_act is 1 there, 256"),
        ({"attn_resolutions": [8]}, "attn_resolutions are [8] there, [4]"),
    ],
)
def test_contradicting_arguments_of_edm2_are_refused(tmp_path, change, message):
    config = EDM2Config(net=EDM2Net(**EDM2_SMALL))
    state = randomised(EDM2(config, find_dataset("digits").spec)).state_dict()
    root = network(state, "Precond", **{"channels_per_head": 8} | change)
    path = write_official(tmp_path / "net.pkl", {"ema": root})
    ran = bench("import", path, "--as", "t", "-d", "digits")
    assert ran.code == 1
    assert message in ran.err


def test_extra_networks_are_of_the_same_method(tmp_path):
    imported(edm2_file(tmp_path / "own.pkl"), name="own")
    torch.save(dit_state(), tmp_path / "net.pt")
    imported(tmp_path / "net.pt", "-m", "dit", *sets("net.heads=4"), name="other")
    ran = bench("sweep", "-g", "2", *QUICK, "--run", "own", "--null-checkpoint", "other")
    assert ran.code == 2
    assert "--null-checkpoint is for runs of dit, and these are of edm2" in ran.err


def test_published_widths_show_their_heads(tmp_path):
    state = dit_state(width=384, heads=6, depth=1)
    save_file(state, tmp_path / "s.safetensors")
    card, _ = imported(tmp_path / "s.safetensors", "-m", "dit")
    assert card.config["net"]["heads"] == 6


def test_weights_stored_in_half_precision_are_used_in_single(tmp_path):
    card, nets = imported(edm2_file(tmp_path / "own.pkl"))
    assert {value.dtype for value in nets.state_dict().values()} == {torch.float32}
    assert card.provenance["imported_class"] == "Precond"


def test_suite_sweeps_imported_runs_with_their_second_network(tmp_path):
    suite = tmp_path / "own.toml"
    suite.write_text(
        'experiment = "own"\n[[study]]\ndataset = "digits"\nruns = ["own-1.5"]\n'
        'null_run = "null-1.5"\nguidance = [1, 2]\nsteps = [2]\nsamples = 4\n'
        'metrics = ["saturation"]\nextractors = ["identity"]\n',
        encoding="utf-8",
    )
    ran = bench("sweep", "--suite", suite)
    assert ran.code == 1
    command = "bench import {0}.pkl --as {0} --dataset digits --experiment own".format
    for name in ("own-1.5", "null-1.5"):
        assert f"Left out {name}: not imported yet; run {command(name)}" in ran.out
    edm2_file(tmp_path / "own-1.5.pkl")
    edm2_file(tmp_path / "null-1.5.pkl", False)
    for name in ("own-1.5", "null-1.5"):
        assert bench(*command(name).split()[1:]).code == 0
    ran = bench("sweep", "--suite", suite)
    assert ran.code == 0, ran.err
    rows = [r for r in read_rows(tmp_path / "results/own/cells") if r.method == "edm2"]
    assert {(r.run, r.guidance, r.status, bool(r.null_checkpoint)) for r in rows} == {
        ("own-1.5", 1.0, "ok", False),
        ("own-1.5", 2.0, "ok", True),
    }
    assert bench("report", "--suite", suite).code == 0
