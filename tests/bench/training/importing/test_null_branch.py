"""Imported runs in sweeps and reports, and a second network as the unconditional branch."""

import pytest
import torch
from safetensors.torch import save_file

from bench.data import DATASETS
from bench.data.convert import from_model, one_hot
from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.experiment.rows import read_rows
from bench.report.numbers.frame import prepare
from bench.sweep.cells import expand
from bench.sweep.generate import generate
from bench.system.files import sha256
from bench.training.card import make_method, read_card
from bench.training.checkpoint import load_weights
from bench.training.extra_network import find_extra_network
from bench.training.run import load_nets, open_run
from methods import METHODS, Guidance, SampleRNG
from methods.edm import EDM
from methods.samplers import karras_sigmas, sample_heun
from tests.bench.helpers import TOY_METRICS, bench, randomised, rows_of, tiny_card
from tests.bench.training.importing.official import network, write_official

SWEEP = ("-n", "6", "--metric", "saturation", "--extractor", "identity", "-m", "edm")


def digits_net(tmp_path, name, **net):
    """A published-looking file of a tiny network for digits, with random weights."""
    card = tiny_card("edm", "digits")
    tree = card.config | {"net": card.config["net"] | net}
    method = EDM(EDM.config_type.model_validate(tree), find_dataset("digits").spec)
    weights = randomised(method).state_dict()
    path = tmp_path / f"{name}.pkl"
    write_official(path, {"ema": network(weights, "EDMPrecond")})
    ran = bench("import", path, "--as", name, "-d", "digits", "--results", tmp_path / "results")
    assert ran.code == 0, ran.err
    return tmp_path / "results/default/runs" / name


def sweep(tmp_path, *more, guidance="1,3"):
    return bench("sweep", "-g", guidance, *SWEEP, "--results", tmp_path / "results", *more)


def samples(tmp_path, run, guidance, null=None):
    place = Experiment(tmp_path / "results", "default")
    found = open_run(
        read_card(place.runs / run), find_dataset(read_card(place.runs / run).dataset), place
    )
    if null is not None:
        found = found.join(find_extra_network("null", null, place))
    nets = load_nets(found, torch.device("cpu"))
    cpu = torch.device("cpu")
    batches = generate(found.method, nets, Guidance(guidance), 3, 0, 5, batch=5, device=cpu)
    return torch.cat([x for x, _ in batches])


def test_imported_run_is_swept_skipped_and_reported(tmp_path):
    folder = digits_net(tmp_path, "official")
    ran = sweep(tmp_path)
    assert ran.code == 0, ran.err
    off, guided = rows_of(tmp_path / "results", "edm")
    assert (off.status, guided.status) == ("ok", "skip")
    assert "--null-checkpoint" in guided.reason
    assert off.checkpoint == sha256(folder / "model.safetensors")
    assert off.data_hash == find_dataset("digits").train.hash
    ran = bench("report", "--results", tmp_path / "results")
    assert ran.code == 0, ran.err
    assert "--null-checkpoint" in (tmp_path / "results/default/report/index.html").read_text()


def test_unconditional_network_is_the_null_branch(tmp_path):
    digits_net(tmp_path, "official")
    folder = digits_net(tmp_path, "blind", conditional=False)
    ran = sweep(tmp_path)
    assert ran.code == 0, ran.err
    reasons = {(r.run, r.reason) for r in rows_of(tmp_path / "results", "edm") if r.reason}
    assert ("blind", "an unconditional network takes no guidance") in reasons
    ran = sweep(tmp_path, "--null-checkpoint", "blind")
    assert ran.code == 0, ran.err
    assert "1 cell computed, 2 kept, 1 skipped" in ran.out
    (row,) = [r for r in rows_of(tmp_path / "results", "edm") if r.null_checkpoint and not r.reason]
    assert (row.run, row.guidance, row.nfe) == ("official", 3.0, 70)
    assert row.null_checkpoint == sha256(folder / "model.safetensors")
    again = sweep(tmp_path, "--null-checkpoint", folder)
    assert "0 cells computed, 3 kept, 1 skipped" in again.out
    sweep(tmp_path)  # whose skip is newer than the cell
    reported = prepare(read_rows(tmp_path / "results/default/cells")).rows
    assert [r.key for r in reported if (r.run, r.guidance) == ("official", 3.0)] == [row.key]


def test_guidance_with_an_unconditional_network_matches_the_rule(tmp_path):
    digits_net(tmp_path, "official")
    digits_net(tmp_path, "blind", conditional=False)
    place = Experiment(tmp_path / "results", "default")
    data, cpu = find_dataset("digits"), torch.device("cpu")
    nets, blind = (
        load_nets(open_run(read_card(place.runs / name), data, place), cpu)
        for name in ("official", "blind")
    )
    labels = one_hot(torch.arange(5), 10)
    noise = SampleRNG(0, list(range(5))).randn(data.spec.shape, cpu)

    def guided(x, sigma):
        unconditional = blind(x, sigma, torch.rand(5, 10))
        return unconditional + 3.0 * (nets(x, sigma, labels) - unconditional)

    with torch.no_grad():
        expected = sample_heun(guided, 80 * noise, karras_sigmas(3)).float().clamp(-1, 1)
    assert torch.equal(samples(tmp_path, "official", 3.0, "blind"), from_model(expected))
    assert not torch.equal(samples(tmp_path, "official", 1.0), from_model(expected))


def test_own_network_as_null_branch_changes_no_sample(trained, tmp_path):
    (run,) = [f.name for f in (trained / "default/runs").iterdir() if "-edm-" in f.name]
    for guidance in (1.0, 4.0, 13.0):
        plain = samples(tmp_path, run, guidance)
        assert torch.equal(samples(tmp_path, run, guidance, run), plain)
    ran = bench("sweep", "-g", "1,4", "-n", "20", *TOY_METRICS, "-m", "edm", "--results", trained)
    assert ran.code == 0, ran.err
    ran = bench("sweep", "-g", "1,4", "-n", "20", *TOY_METRICS, "--results", trained,
                "-m", "edm", "--null-checkpoint", run)  # fmt: skip
    assert "1 cell computed, 1 kept" in ran.out
    one, plain, second = rows_of(trained, "edm")
    assert one.null_checkpoint == ""
    assert {v.metric: v.value for v in plain.values} == {v.metric: v.value for v in second.values}
    assert plain.nfe == second.nfe


def test_keys_without_an_extra_network_are_unchanged(trained, tmp_path):
    (folder,) = [f for f in (trained / "default/runs").iterdir() if "-edm-" in f.name]
    place = Experiment(trained, "default")
    found = open_run(read_card(folder), find_dataset("modes1d"), place)
    joined = found.join(find_extra_network("null", folder.name, place))
    old, new = (expand(t, (1.0, 2.0), (3,), (0,), 5) for t in (found, joined))
    assert old[0].key == new[0].key
    assert old[1].key != new[1].key


def test_null_branch_may_be_a_weights_file(tmp_path):
    digits_net(tmp_path, "official")
    folder = digits_net(tmp_path, "blind", conditional=False)
    file = tmp_path / "blind.safetensors"
    save_file(load_weights(folder / "model.safetensors"), file)
    by_file = samples(tmp_path, "official", 3.0, str(file))
    assert torch.equal(by_file, samples(tmp_path, "official", 3.0, "blind"))


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ("official", "always trained with labels"),
        ("nothing", "no fitting run of this experiment (it has: blind, modes1d-edm-s0, official)"),
        ("modes1d-ct-s0", "is a run of ct"),
        ("modes1d-edm-s0", "for the data set 'modes1d', and run"),
    ],
)
def test_unsuitable_null_branch_is_refused_with_the_reason(trained, tmp_path, null, message):
    digits_net(tmp_path, "official")
    digits_net(tmp_path, "blind", conditional=False)
    ran = sweep(tmp_path, "--null-checkpoint", null, "-d", "digits")
    assert ran.code != 0
    assert message in ran.err


def test_null_checkpoint_is_only_for_edm(trained):
    ran = bench("sweep", "-m", "ct", "--null-checkpoint", "modes1d-edm-s0", "--results", trained)
    assert ran.code == 2
    assert "for runs of edm" in ran.err


def test_imported_runs_without_their_data_are_skipped(trained, tmp_path, monkeypatch):
    digits_net(tmp_path, "official")
    monkeypatch.delitem(DATASETS, "digits")
    ran = bench("sweep", "-g", "1", "-n", "20", *TOY_METRICS, "-m", "edm", "--results", trained)
    assert ran.code == 0, ran.err
    assert "Left out official: its data set 'digits' is not registered" in ran.out


def test_unconditional_networks_ignore_labels(tmp_path):
    folder = digits_net(tmp_path, "blind", conditional=False)
    card = read_card(folder)
    assert card.config["net"]["conditional"] is False
    nets = randomised(make_method(card, find_dataset("digits")))
    x, sigma, labels = torch.ones(3, 1, 8, 8), torch.ones(3), torch.eye(10)[:3]
    out = nets(x, sigma, labels)
    assert torch.equal(out[0], out[1])
    assert METHODS["edm"] is EDM
