"""Which network of a file is taken: prefixes, containers, moving averages, `--key`."""

import pytest
import torch
from safetensors.torch import save_file

from bench.system.errors import UserError
from bench.training.importing.source import read_source
from tests.bench.helpers import bench
from tests.bench.training.importing.official import golden_weights, network, write_official

BUFFERS = ("resample_filter", "freqs")


@pytest.fixture
def ema():
    return golden_weights("edm_ncsnpp")


@pytest.fixture
def raw(ema):
    return {k: v if k.endswith(BUFFERS) else v + 1 for k, v in ema.items()}


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(tmp_path, content, key=None):
    torch.save(content, tmp_path / "net.pt")
    return read_source(tmp_path / "net.pt", key)


def same(found, weights):
    assert found.tensors.keys() == weights.keys()
    assert all(torch.equal(found.tensors[k], weights[k]) for k in weights)


def under(prefix, weights):
    return {prefix + k: v for k, v in weights.items()}


PREFIXES = [
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.",
    "net.", "net._orig_mod.", "_orig_mod.net.module.", "denoiser.inner.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_prefixes_are_removed(tmp_path, ema, prefix, kind):
    path = tmp_path / f"net.{kind}"
    named = under(prefix, ema)
    save_file(named, path) if kind == "safetensors" else torch.save(named, path)
    found = read_source(path)
    same(found, ema)
    words = [part for part in prefix.split(".") if part not in ("module", "_orig_mod", "")]
    assert found.key == ".".join(words)


@pytest.mark.parametrize("inner", ["model._orig_mod.", "model.module.", "model._orig_mod.module."])
@pytest.mark.parametrize("outer", ["", "module."])
def test_wrappers_inside_the_names_are_removed(tmp_path, ema, inner, outer):
    named = {outer + k.replace("model.", inner, 1): v for k, v in ema.items()}
    same(read(tmp_path, named), ema)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.net."])
def test_both_networks_of_igct_are_found_under_a_prefix(tmp_path, prefix):
    weights = golden_weights("igct_ncsnpp")
    same(read(tmp_path, under(prefix, weights)), weights)


def test_network_without_its_preconditioning_gets_the_usual_names(tmp_path, ema):
    bare = {k.removeprefix("model."): v for k, v in ema.items()}
    same(read(tmp_path, bare), ema)
    same(read(tmp_path, {"state_dict": under("net.", bare), "epoch": 3}), ema)


def test_tensors_beside_the_network_are_named(tmp_path, ema):
    averaged = {"n_averaged": torch.tensor(3), **under("module.", ema)}
    found = read(tmp_path, averaged)
    same(found, ema)
    assert found.notes == ("Not imported beside the network: 1 tensor (n_averaged).",)


CONTAINERS = {
    "ema": lambda r, e: {"net": r, "ema": e},
    "ema_state_dict": lambda r, e: {"model_state_dict": r, "ema_state_dict": e, "step": 3},
    "ema.model": lambda r, e: {"net": {"model": r}, "ema": {"model": e, "decay": 0.999}},
    "state_dict.ema_model": lambda r, e: {
        "state_dict": {**under("online_model.", r), **under("ema_model.", e)}
    },
    "state_dict.net_ema": lambda r, e: {
        "state_dict": {**under("net.", r), **under("net_ema.", e), "loss.w": torch.ones(2)}
    },
    "emas.0": lambda r, e: {"model": r, "emas": [e], "stds": [0.05]},
    "emas.0.9999": lambda r, e: {"model": r, "emas": {0.9999: e}},
    "ema.shadow_params": lambda r, e: {
        "model": r, "ema": {"decay": 0.9, "num_updates": 7, "shadow_params": parameters(e)}
    },
}  # fmt: skip


def parameters(weights):
    return [v for k, v in weights.items() if not k.endswith(BUFFERS)]


@pytest.mark.parametrize("key", CONTAINERS)
def test_moving_average_is_found_in_its_container(tmp_path, raw, ema, key):
    found = read(tmp_path, CONTAINERS[key](raw, ema))
    same(found, ema)
    assert found.key == key
    assert not any("EMA" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["pkl", "pt"])
def test_raw_network_is_taken_only_when_asked_for_and_said(tmp_path, raw, ema, kind):
    content = {"net": network(raw, "EDMPrecond"), "ema": network(ema, "EDMPrecond")}
    path = tmp_path / f"net.{kind}"
    if kind == "pkl":
        write_official(path, content)
    else:
        torch.save({"net": raw, "ema": ema}, path)
    same(read_source(path), ema)
    found = read_source(path, "net")
    same(found, raw)
    [note] = found.notes
    assert "raw network was taken" in note
    assert "--key ema" in note


def test_average_that_is_no_network_is_said(tmp_path, raw):
    found = read(tmp_path, {"model": raw, "ema": {"shadow_params": [torch.ones(2)]}})
    same(found, raw)
    [note] = found.notes
    assert note == (
        "The raw network was taken: the moving average (EMA) under 'ema' is no network that can "
        "be read."
    )


def test_several_networks_need_a_key(tmp_path, raw, ema):
    torch.save({"emas": [raw, ema], "net": raw}, tmp_path / "net.pt")
    ran = bench("import", "net.pt", "--as", "x", "-d", "golden16", "-m", "edm")
    assert ran.code == 2
    assert "has 2 networks: 'emas.0' (state dict, " in ran.err
    assert "name one with --key" in ran.err
    ran = bench("import", "net.pt", "--as", "x", "-d", "golden16", "-m", "edm", "--key", "other")
    assert ran.code == 2
    assert "no network under 'other'. It has 3 networks: 'emas.0'" in ran.err
    same(read_source(tmp_path / "net.pt", "emas.1"), ema)
    same(read_source(tmp_path / "net.pt", "net"), raw)
    with pytest.raises(UserError, match="2 networks"):
        read(tmp_path, {"student": raw, "teacher": ema})
    ran = bench("import", "net.pt", "--as", "x", "-d", "golden16", "-m", "edm", "--key", "student")
    assert ran.code == 0, ran.err
    assert "under 'student'" in ran.out


def test_key_of_the_container_is_enough(tmp_path, ema, raw):
    content = {"state_dict": under("net.", ema), "teacher": {"net": raw}}
    same(read(tmp_path, content, "state_dict"), ema)
    same(read(tmp_path, content, "teacher"), raw)
